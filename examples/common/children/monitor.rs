//! The address of monitors of several processes: the launcher chooses its port.

use std::ffi::OsString;
use std::net::TcpListener;

/// The arguments of a process, with a port in place of port 0 of `--monitor`: all processes have to know it. The port after
/// it is free as well, for the reports.
pub fn with_ports(mut args: Vec<OsString>) -> Vec<OsString> {
    for at in 0..args.len() {
        let text = args[at].to_string_lossy().into_owned();
        let (flag, value) = match text.strip_prefix("--monitor=") {
            Some(value) => ("--monitor=", value),
            None if at > 0 && args[at - 1] == "--monitor" => ("", text.as_str()),
            None => continue,
        };
        if let Some(host) = value.strip_suffix(":0")
            && let Some(port) = free_ports(host)
        {
            args[at] = format!("{flag}{host}:{port}").into();
        }
    }
    args
}

/// A port of this host that is free, as is the one after it. Another program can take one of them before it is used.
fn free_ports(host: &str) -> Option<u16> {
    (0..16).find_map(|_| {
        let first = TcpListener::bind(format!("{host}:0")).ok()?;
        let port = first.local_addr().ok()?.port();
        TcpListener::bind(format!("{host}:{}", port.checked_add(1)?)).ok().map(|_| port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_replaced_in_both_forms() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (text, kept) in [("--monitor 127.0.0.1:0 --x 1:0", "--x 1:0"), ("--json --monitor=127.0.0.1:0", "--json")] {
            let text = with_ports(args(text)).iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>();
            let text = text.join(" ");
            assert!(text.contains("127.0.0.1:") && !text.contains("127.0.0.1:0 ") && text.contains(kept), "{text}");
            assert!(!text.ends_with("127.0.0.1:0"), "{text}");
        }
        for text in ["--monitor 127.0.0.1:7700", "--metrics 127.0.0.1:0", "--monitor nowhere.invalid:0"] {
            assert_eq!(with_ports(args(text)), args(text));
        }
    }
}
