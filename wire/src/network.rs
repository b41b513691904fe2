//! Networks that a token may be used from.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most networks of one token.
pub const NETWORKS_MAX: usize = 64;

/// A list of networks; the empty one is all there are. As text: CIDR notation (RFC 4632, RFC 4291), separated by commas. A
/// single address stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads the text form.
    ///
    /// # Errors
    /// A sentence for the person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks: Vec<IpNet> = parts.map(parse_one).collect::<Result<_, _>>()?;
        if networks.len() > NETWORKS_MAX {
            return Err(format!("at most {NETWORKS_MAX} networks"));
        }
        Ok(Self(networks))
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket that serves both families shows IPv4 as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether a token for these networks may be used from an address.
    ///
    /// # Errors
    /// A sentence for the person.
    pub fn check(&self, from: IpAddr) -> Result<(), String> {
        if self.contains(from) {
            return Ok(());
        }
        Err(format!("this token is not for the network that {from} is in: ask the operator"))
    }

    /// Whether that is all there are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_one(part: &str) -> Result<IpNet, String> {
    let parsed = match part.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => part.parse::<IpNet>(),
    };
    // The text may be anything: it is not repeated whole.
    let shown: String = part.chars().take(50).collect();
    let network =
        parsed.map_err(|_| format!("{shown:?} is no network: write 10.1.0.0/16 or 2001:db8::/32"))?;
    if network != network.trunc() {
        return Err(format!("{shown:?} has bits set behind its length: did you mean {}?", network.trunc()));
    }
    Ok(network)
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(networks: &str, address: &str) -> bool {
        Networks::parse(networks).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses() {
        let two = "10.1.0.0/16, 2001:db8::/32,192.0.2.7";
        for (address, inside) in [
            ("10.1.255.3", true),
            ("::ffff:10.1.0.1", true),
            ("10.2.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("::10.1.0.1", false),
        ] {
            assert_eq!(contains(two, address), inside, "{address}");
        }
        assert!(contains("", "10.1.0.1") && contains(" , ", "::1"), "none given: all");
        assert!(contains("0.0.0.0/0", "10.1.0.1") && !contains("0.0.0.0/0", "::1"));
    }

    #[test]
    fn texts() {
        let text = "10.1.0.0/16,2001:db8::/32,192.0.2.7/32";
        let networks = Networks::parse(text).unwrap();
        assert_eq!(networks.to_string(), text);
        assert_eq!(Networks::parse(&networks.to_string()).unwrap(), networks);
        for bad in
            ["10.1.0.0/33", "10.1.0.0/-1", "10.1.2.3/16", "example.com", "10.1", "::/129", "10.0.0.0/8/8"]
        {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
        assert!(Networks::parse("10.1.2.3/16").unwrap_err().contains("10.1.0.0/16"));
        assert!(Networks::parse(&"::/0,".repeat(NETWORKS_MAX + 1)).is_err());
    }
}
