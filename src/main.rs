use std::process::ExitCode;

#[global_allocator]
static MEMORY: sealift::cli::Memory = sealift::cli::Memory;

fn main() -> ExitCode {
    sealift::cli::run()
}
