//! The program `sealift`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: sealift::cli::ReportingAllocator = sealift::cli::ReportingAllocator;

fn main() -> ExitCode {
    sealift::base::sqlite::register_program();
    if sealift::base::sqlite::serve() {
        return ExitCode::SUCCESS;
    }
    sealift::cli::run()
}
