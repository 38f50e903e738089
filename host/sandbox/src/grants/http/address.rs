//! Which addresses are on the public Internet, so that a name that is granted cannot lead into the
//! operator's own networks.
//!
//! By the registries of IANA for special-purpose addresses (RFC 6890 and what came after it); of
//! IPv6, only what is delegated for global unicast (2000::/3) can be public. An address of IPv4
//! inside one of IPv6 is judged by itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Addresses of one name that are looked at.
const MAX_ADDRESSES: usize = 32;

/// Names that are looked up at a time, by all instances: each holds a thread until the system answers,
/// whether anybody still waits or not.
const MAX_LOOKUPS: usize = 64;

/// Those of them that all instances of one plugin may have: who serves its names may be its friend, and
/// answer none.
const MAX_LOOKUPS_OF_ONE: usize = 8;

static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// The lookups of one plugin, of all its instances together.
#[derive(Clone, Debug)]
pub(crate) struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS_OF_ONE)))
    }
}

impl Lookups {
    /// The same as [`look_up`], once this plugin has a turn.
    pub(super) async fn look_up(
        &self,
        host: &str,
        port: u16,
        held: impl Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let own = Arc::clone(&self.0).acquire_owned().await;
        let own = own.map_err(io::Error::other)?;
        look_up(host, port, (own, held)).await
    }
}

/// The addresses that a name stands for. What is given to hold is held until the lookup has ended,
/// which may be after whoever asked has gone.
pub(in crate::grants) async fn look_up(
    host: &str,
    port: u16,
    held: impl Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let turn = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    let looking = tokio::spawn(async move {
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        drop((turn, held));
        found.map(|addresses| addresses.take(MAX_ADDRESSES).collect())
    });
    looking.await.map_err(io::Error::other)?
}

/// Whether an address is public.
pub(in crate::grants) fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// An address of IPv4 that is written as one of IPv6 (RFC 4291, 2.5.5.2), as itself.
pub(in crate::grants) fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(mapped) => mapped.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network; private; loopback; multicast and reserved.
        (0 | 10 | 127 | 224..=255, _, _)
        // Shared by carriers; link-local, where clouds keep their metadata.
        | (100, 64..=127, _) | (169, 254, _)
        // Private.
        | (172, 16..=31, _) | (192, 168, _)
        // Protocol assignments; documentation; 6to4 relays; AS112; benchmarks.
        | (192, 0, 0 | 2) | (192, 88, 99) | (192, 31, 196) | (192, 52, 193) | (192, 175, 48)
        | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // Translated from IPv4 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Protocol assignments, Teredo and ORCHID among them; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Mutex;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// One test at a time: lookups are counted for all.
    static ALONE: Mutex<()> = Mutex::const_new(());

    #[tokio::test]
    async fn who_finds_all_lookups_taken_waits_for_one_to_end() {
        let _alone = ALONE.lock().await;
        let all = LOOKUPS.acquire_many(MAX_LOOKUPS as u32).await;
        let all = all.expect("nobody closes it");
        let mut looking = Box::pin(look_up("localhost", 80, ()));
        let waited = timeout(Duration::from_millis(50), &mut looking).await;
        assert!(waited.is_err(), "{waited:?}");
        drop(all);
        let found = looking.await.expect("this machine");
        assert!(!found.is_empty() && found.len() <= MAX_ADDRESSES);
        assert!(found.iter().all(|it| it.ip().is_loopback()), "{found:?}");
        assert_eq!(LOOKUPS.available_permits(), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn a_lookup_that_is_left_holds_its_place_until_it_has_ended() {
        let _alone = ALONE.lock().await;
        let place = Arc::new(());
        let mut looking = Box::pin(look_up("localhost", 80, Arc::clone(&place)));
        // It is under way; with one thread it goes on only when this waits.
        assert!(futures::poll!(&mut looking).is_pending());
        drop(looking);
        assert_eq!(Arc::strong_count(&place), 2);
        assert_eq!(LOOKUPS.available_permits(), MAX_LOOKUPS - 1);
        let ended = async {
            while Arc::strong_count(&place) > 1 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), ended)
            .await
            .expect("it ends");
        assert_eq!(LOOKUPS.available_permits(), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn a_lookup_that_fails_gives_its_place_back() {
        let _alone = ALONE.lock().await;
        let place = Arc::new(());
        // No system takes it for a name, so nobody is asked.
        let looked = look_up("no\0name", 80, Arc::clone(&place)).await;
        assert!(looked.is_err(), "{looked:?}");
        assert_eq!(Arc::strong_count(&place), 1);
        assert_eq!(LOOKUPS.available_permits(), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn one_plugin_leaves_lookups_to_others() {
        let _alone = ALONE.lock().await;
        let (of_one, of_other) = (Lookups::default(), Lookups::default());
        let left: Vec<_> = (0..MAX_LOOKUPS_OF_ONE)
            .map(|_| Arc::clone(&of_one.0).try_acquire_owned().expect("a turn"))
            .collect();
        let mut looking = Box::pin(of_one.look_up("localhost", 80, ()));
        let waited = timeout(Duration::from_millis(50), &mut looking).await;
        assert!(waited.is_err(), "{waited:?}");
        assert_eq!(
            LOOKUPS.available_permits(),
            MAX_LOOKUPS,
            "it takes no place"
        );
        let found = of_other.look_up("localhost", 80, ()).await;
        assert!(found.is_ok_and(|found| !found.is_empty()));
        drop(left);
        let found = looking.await;
        assert!(found.is_ok_and(|found| !found.is_empty()));
        assert_eq!(of_one.0.available_permits(), MAX_LOOKUPS_OF_ONE);
    }

    #[test]
    fn only_the_internet_is_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(address.parse().expect("an address")), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(
                !is_public(address.parse().expect("an address")),
                "{address}"
            );
        }
    }
}
