//! Entry point of the binary: everything is in the library.

use std::process::ExitCode;

use webhook_operator::{cli, controller};

#[tokio::main]
async fn main() -> ExitCode {
    cli::main(controller::run).await
}
