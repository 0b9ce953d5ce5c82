//! A frame and what the kernel says beside it.

use super::LOOPBACK;

/// A frame with the fields of `struct __sk_buff` that `BPF_PROG_TEST_RUN` lets a caller choose.
#[derive(Clone, Debug)]
pub struct Skb {
    /// From the receiver's Ethernet address on.
    pub frame: Vec<u8>,
    /// The interface that it crosses, of the calling thread's namespace.
    pub ifindex: u32,
    /// Payload bytes of each segment that a super-packet becomes; zero for an ordinary packet.
    pub gso_size: u32,
    /// How many segments it becomes, if the sender knows.
    pub gso_segs: u32,
}

impl From<Vec<u8>> for Skb {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame, ifindex: LOOPBACK, gso_size: 0, gso_segs: 0 }
    }
}

impl From<&[u8]> for Skb {
    fn from(frame: &[u8]) -> Self {
        frame.to_vec().into()
    }
}

/// Bytes of `struct __sk_buff`; the kernel takes a shorter one as filled up with zeros.
const CONTEXT_BYTES: usize = 192;
/// Offsets in it, fixed by the kernel's interface.
const IFINDEX: usize = 40;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

impl Skb {
    /// Bytes of the frame as it is in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.frame.len() as u64
    }

    /// A super-packet of segments of `gso_size` bytes of payload.
    #[must_use]
    pub fn segmented(self, gso_size: u32, gso_segs: u32) -> Self {
        Self { gso_size, gso_segs, ..self }
    }

    /// The same frame on another interface.
    #[must_use]
    pub fn on(self, ifindex: u32) -> Self {
        Self { ifindex, ..self }
    }

    /// The `struct __sk_buff` to start from.
    pub(super) fn context(&self) -> [u8; CONTEXT_BYTES] {
        let mut context = [0; CONTEXT_BYTES];
        for (offset, value) in [(IFINDEX, self.ifindex), (GSO_SEGS, self.gso_segs), (GSO_SIZE, self.gso_size)]
        {
            context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        context
    }
}
