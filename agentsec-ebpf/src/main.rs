#![no_std]
#![no_main]
//! Kernel programs.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
