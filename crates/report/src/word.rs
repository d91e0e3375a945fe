/// Defines an enum whose values are words, the same in JSON, in SQL and in messages.
macro_rules! words {
    ($(#[$doc:meta])* $Name:ident, $what:literal: $($(#[$value_doc:meta])* $Value:ident = $word:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "lowercase")]
        pub enum $Name {
            $($(#[$value_doc])* $Value),+
        }

        impl $Name {
            /// All of them, in their order.
            pub const ALL: &[$Name] = &[$($Name::$Value),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($Name::$Value => $word),+
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $Name {
            type Err = crate::word::UnknownWord;

            fn from_str(word: &str) -> Result<$Name, Self::Err> {
                let known = $Name::ALL.iter().find(|known| known.as_str() == word);
                known.copied().ok_or_else(|| crate::word::UnknownWord::new($what, word, &[$($word),+]))
            }
        }

        /// For sqlx.
        impl TryFrom<String> for $Name {
            type Error = crate::word::UnknownWord;

            fn try_from(word: String) -> Result<$Name, Self::Error> {
                word.parse()
            }
        }
    };
}
pub(crate) use words;

/// A word that is none of those expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord(String);

impl UnknownWord {
    pub(crate) fn new(what: &str, word: &str, known: &[&str]) -> UnknownWord {
        UnknownWord(format!("{what} \"{word}\" is not one of {}", known.join(", ")))
    }
}

impl std::fmt::Display for UnknownWord {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for UnknownWord {}

#[cfg(test)]
mod tests {
    use crate::{Level, Mode, State};

    #[test]
    fn a_word_is_the_same_in_json_and_in_text() {
        for mode in Mode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
            assert_eq!(mode.to_string().parse(), Ok(*mode));
        }
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_those_that_are_known() {
        let refused = "boss".parse::<Level>().unwrap_err().to_string();
        assert_eq!(refused, "level \"boss\" is not one of monitor, operator, admin");
        assert!("Regular".parse::<Mode>().is_err());
    }

    #[test]
    fn a_level_has_what_those_before_it_have() {
        assert!(Level::Monitor < Level::Operator && Level::Operator < Level::Admin);
    }
}
