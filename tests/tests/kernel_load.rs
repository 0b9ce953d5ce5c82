//! Every program of the object passes this kernel's verifier.

use aya::EbpfLoader;
use aya::programs::Program;

#[test]
fn every_program_passes_the_verifier() {
    for told in [0u8, 1] {
        let mut loader = EbpfLoader::new();
        loader.override_global(agentsec_common::maps::TELLS_NAMESPACE, &told, true);
        let mut object = loader.load(agentsec::kernel::OBJECT).unwrap();
        for (name, program) in object.programs_mut() {
            let loaded = match program {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                Program::CgroupSkb(program) => program.load(),
                // Kernels that are locked down refuse it; tried where it is attached.
                Program::Lsm(_) => continue,
                _ => panic!("{name} is of no kind that is expected"),
            };
            if let Err(error) = loaded {
                panic!("{name}: {error:#}");
            }
            println!("{name}: {:?}", program.info().unwrap().verified_instruction_count());
        }
    }
}
