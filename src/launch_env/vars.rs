//! Reading single variables.

use super::LaunchEnvError;

/// The value of an environment variable, if it is set.
pub(super) type Env<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// Environment variables, and notes about ignored ones.
pub(super) struct Vars<'a> {
    env: Env<'a>,
    pub(super) notes: Vec<String>,
}

impl<'a> Vars<'a> {
    pub(super) fn new(env: Env<'a>) -> Self {
        Self { env, notes: Vec::new() }
    }

    /// The value without white space around it. An empty one counts as not set.
    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
    }

    /// The first of these variables that is set.
    pub(super) fn first(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, self.text(name)?)))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u32>, LaunchEnvError> {
        self.text(name).map(|value| number(name, value)).transpose()
    }

    /// The number in a variable, if it has one.
    pub(super) fn maybe_number(&self, name: &'static str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    /// A port. Kubernetes sets `NAME_PORT=tcp://…` for each service, for its name in capitals.
    pub(super) fn port(&mut self, name: &'static str) -> Result<Option<u16>, LaunchEnvError> {
        let Some(got) = self.text(name) else { return Ok(None) };
        if got.contains("://") {
            self.notes.push(format!("{name}={got} is ignored: Kubernetes sets it for a service of that name"));
            return Ok(None);
        }
        match got.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(LaunchEnvError::Value { name, expected: "a port, 1 to 65535", got }),
        }
    }
}

pub(super) fn number(name: &'static str, got: String) -> Result<u32, LaunchEnvError> {
    got.parse().map_err(|_| LaunchEnvError::Value { name, expected: "a whole number", got })
}

/// `HOST:PORT`. An IPv6 address needs brackets, since it has colons of its own.
///
/// # Errors
/// If the value of `name` is neither a host name nor an address.
pub(super) fn address(name: &'static str, host: &str, port: u16) -> Result<String, LaunchEnvError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if !bare.contains(':') {
        return Ok(format!("{bare}:{port}"));
    }
    // A link-local address has its interface behind it: fe80::1%eth0.
    let plain = bare.split_once('%').map_or(bare, |(plain, _)| plain);
    match plain.parse::<std::net::Ipv6Addr>() {
        Ok(_) => Ok(format!("[{bare}]:{port}")),
        Err(_) => {
            let expected = "a host name or an address, without a port";
            Err(LaunchEnvError::Value { name, expected, got: host.to_string() })
        }
    }
}
