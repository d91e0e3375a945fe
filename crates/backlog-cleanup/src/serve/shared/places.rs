use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections at all; fewer than the 1,024 files that a process may usually open.
const MOST: usize = 800;
/// Connections of one address: nobody takes all of them.
const MOST_OF_ONE: usize = 250;

/// The places for connections, by address.
#[derive(Default)]
pub struct Places(Mutex<HashMap<IpAddr, usize>>);

/// A place of a connection, until it is dropped.
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Places {
    /// Takes a place; `None` if the address has all of its own, or there is none left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut taken = self.0.lock();
        let own = taken.get(&network).copied().unwrap_or(0);
        if own >= MOST_OF_ONE || taken.values().sum::<usize>() >= MOST {
            return None;
        }
        taken.insert(network, own + 1);
        Some(Place { places: Arc::clone(self), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(own) = taken.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

/// The /64 network of an IPv6 address, since a host has all of its addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
        }
        address => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_share_a_limit() {
        for (address, same) in [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1")] {
            assert_eq!(network(address.parse().unwrap()), network(same.parse().unwrap()), "{address}");
        }
        for (address, other) in [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2")] {
            assert_ne!(network(address.parse().unwrap()), network(other.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn one_address_leaves_places_for_others_and_all_of_them_leave_files() {
        let places = Arc::new(Places::default());
        let take = |network: usize| places.take(format!("192.0.2.{network}").parse().unwrap());
        let mut held: Vec<Place> = (0..MOST_OF_ONE).map(|_| take(1).expect("a place")).collect();
        assert!(take(1).is_none());
        held.extend((0..MOST - MOST_OF_ONE).map(|number| take(2 + number / MOST_OF_ONE).expect("a place")));
        assert!(take(9).is_none());
        held.pop();
        assert!(take(9).is_some());
        drop(held);
        assert!(places.0.lock().is_empty());
    }
}
