use sha2::{Digest, Sha256};

/// The SHA-256 of a token or of a session's cookie; the server does not keep the secret itself.
pub type Hash = [u8; 32];

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}
