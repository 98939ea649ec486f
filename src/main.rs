use std::process::ExitCode;

#[global_allocator]
static MEMORY: sealift::cli::Memory = sealift::cli::Memory;

fn main() -> ExitCode {
    sealift::base::sqlite::register_program();
    if sealift::base::sqlite::serve() {
        return ExitCode::SUCCESS;
    }
    sealift::cli::run()
}
