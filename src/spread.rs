use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// Hashes recipes and messages. A run looks up a million of them, and std's hash costs more than the lookup. The hash is seeded once
/// per process, so that they cannot be chosen to collide.
#[derive(Clone, Copy)]
pub struct Spread {
    seed: u64,
    /// Odd.
    factor: u64,
}

impl Default for Spread {
    fn default() -> Spread {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        let keys = KEYS.get_or_init(RandomState::new);
        Spread { seed: keys.hash_one(0), factor: keys.hash_one(1) | 1 }
    }
}

impl BuildHasher for Spread {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { of: *self, hash: 0 }
    }
}

/// Multiplies a number to 128 bits, and folds them: every bit of the hash depends on every bit of the number.
pub struct Folded {
    of: Spread,
    hash: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (numbers, rest) = bytes.as_chunks();
        numbers.iter().for_each(|number| self.write_i64(i64::from_ne_bytes(*number)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.write_i64(i64::from_ne_bytes(last));
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.write_i64(number as i64);
    }

    fn write_i64(&mut self, number: i64) {
        let product = u128::from(self.hash ^ number as u64 ^ self.of.seed) * u128::from(self.of.factor);
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Instant;

    use super::*;

    /// Numbers whose products with the golden ratio, the constant of 0.2, differ in few bits: there they shared a bucket.
    fn chosen() -> impl Iterator<Item = i64> {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        // The inverse modulo 2^64, by Newton's iteration.
        let inverse =
            (0..6).fold(1_u64, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(GOLDEN.wrapping_mul(inverse))));
        // The bucket was taken from the product's upper half, and the tag from its middle.
        (0..120_000_u64).map(move |low| low.wrapping_mul(inverse) as i64)
    }

    #[test]
    fn numbers_chosen_against_a_known_constant_do_not_collide() {
        let spread = Spread::default();
        let mut buckets: HashMap<u64, usize> = HashMap::new();
        for number in chosen() {
            *buckets.entry(spread.hash_one(number) & 0x3_FFFF).or_default() += 1;
        }
        // 120,000 in 262,144 buckets: a Poisson of 0.46 per bucket.
        assert!(buckets.values().max() <= Some(&12), "{:?}", buckets.values().max());

        let started = Instant::now();
        let mut places: HashMap<i64, usize, Spread> = HashMap::default();
        places.extend(chosen().enumerate().map(|(place, number)| (number, place)));
        assert!(started.elapsed().as_millis() < 500, "{:?}", started.elapsed());
    }

    #[test]
    fn a_process_has_one_seed() {
        assert_eq!(Spread::default().hash_one(7_i64), Spread::default().hash_one(7_i64));
    }
}
