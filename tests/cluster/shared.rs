use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Values that tests which run beside each other have in common; the last test that uses one drops it.
pub struct Shared<T>(Mutex<BTreeMap<String, Weak<T>>>);

impl<T> Shared<T> {
    pub const fn new() -> Shared<T> {
        Shared(Mutex::new(BTreeMap::new()))
    }

    pub fn get(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let value = Arc::new(make());
            values.insert(key.to_owned(), Arc::downgrade(&value));
            value
        })
    }
}
