//! A D-Bus service that does nothing, peer to peer, with a thread for each client as pinfold has: what every call costs
//! by itself. The reference of `cargo xtask bench`.
//!
//! `null_service SOCKET` listens at SOCKET until it is killed. Its one object is `/null`, its one method `org.null.Null`.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;

use zbus::connection::Builder;

struct Null;

#[zbus::interface(name = "org.null", spawn = false)]
impl Null {
    async fn null(&self) {}
}

fn serve(stream: UnixStream) -> zbus::Result<()> {
    zbus::block_on(async {
        let guid = zbus::Guid::generate();
        let connection =
            Builder::unix_stream(stream).server(guid).p2p().serve_at("/null", Null).build().await?;
        connection.closed().await;
        Ok(())
    })
}

fn run(socket: &Path) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept()?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("null_service: {error}");
            }
        });
    }
}

fn main() -> ExitCode {
    let Some(socket) = std::env::args_os().nth(1) else {
        eprintln!("usage: null_service SOCKET");
        return ExitCode::from(2);
    };
    match run(Path::new(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("null_service: {error}");
            ExitCode::FAILURE
        }
    }
}
