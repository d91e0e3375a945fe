/// Characters of a fingerprint.
const LENGTH: usize = 100;

/// Bytes of a line that are read.
const LOOKED_AT: usize = 10_000;

/// What stands for a number, an id, a time or an address. In a message it reads as such, so that a fingerprint is its own.
const NUMBER: &str = "#";

/// Returns what a message has in common with others of the same failure: its first line that is not empty, without what
/// differs from one occurrence to the next, cut after 100 characters between two words.
///
/// | in the message | in the fingerprint |
/// |---|---|
/// | numbers with their units, hex, ids (uuid, ulid, ksuid), times, IP addresses and ports | `#` |
/// | a number behind a name: `worker7`, `sha256` | `worker#`, `sha#` |
/// | quoted strings | `"*"`, `'*'` |
/// | URLs, e-mail addresses, paths | `https://url`, `user@host`, `/path` |
/// | equal ones in a row: `1, 2, 3` | the first: `#` |
///
/// Words stay, and so do codes:
///
/// - a number of at most five digits, or capitals with one, after `HTTP`, `status`, `code`, `errno`, `signal`, `SQLSTATE`,
///   `error`: `HTTP 503`, `[Errno 111]`, `exit code 137`, `SQLSTATE[23505]`, `error TS2304`
/// - a status with its reason: `503 Service Unavailable`
/// - a number of at most five digits that is glued to one of these, or to `err`: `Http404`, `HTTP_404`, `StatusCode502`
/// - a code with a colon at the start or after another colon: `ORA-00001:`, `P2002:`, `23505:`
/// - the codes of Oracle, `ORA-12541`, those with a letter for their severity, `SQL0911N`, the SQLSTATEs with `P` or `S` in the middle, `40P01`
/// - `E` with four or five digits: `E11000`
/// - the number with which the text of an error begins: `OperationalError: (2003, "...")`
/// - a name that ends as those of errors do: `S3Timeout`, `OAuth2Error`
///
/// Quotes quote nothing in a line that starts as JSON, and around the message of an error: `OSError('disk full')`.
///
/// The fingerprint of a fingerprint is itself. Of a long line 10,000 bytes are read, in a time linear in their number. Indexes and policies hold
/// fingerprints, so it may not change in a release without a REINDEX and a look at the policies.
pub fn fingerprint(message: &str) -> String {
    let line = message.trim_start();
    let line = line[..line.floor_char_boundary(LOOKED_AT)].lines().next().unwrap_or_default();
    let is_json = line.starts_with('{') || line.starts_with("[{");
    let written = Written { text: String::with_capacity(LENGTH), ..Written::default() };
    let mut reader = Reader { line, at: 0, is_json, unclosed: [false; QUOTES.len()], written };
    while reader.step().is_some() {}
    let Written { mut text, last, .. } = reader.written;
    // A quote that nothing closes would close another one at the end.
    let end = last.map_or(0, |last| last.end);
    let rest = text[end..].trim_end_matches(|c: char| c.is_whitespace() || c.is_ascii() && QUOTES.contains(&(c as u8)));
    text.truncate(end + rest.len());
    text
}

/// Reads a line from left to right, and decides by the text before and behind. A placeholder begins and ends with characters of the
/// same kind as the text that it replaces, so a second reading decides the same.
struct Reader<'a> {
    line: &'a str,
    at: usize,
    is_json: bool,
    /// The quotes, of `QUOTES`, that nothing ahead closes.
    unclosed: [bool; QUOTES.len()],
    written: Written,
}

const QUOTES: [u8; 3] = *b"\"'`";

/// What stands between equal placeholders that are one.
const SEPARATORS: &[u8] = b" ,:+-/.|_";

impl Reader<'_> {
    /// Reads the next token. Returns `None` at the end of the line, or when the fingerprint is full.
    fn step(&mut self) -> Option<()> {
        let byte = *self.line.as_bytes().get(self.at)?;
        if is_word(byte) {
            return match self.end_of_plain_word() {
                Some(end) => {
                    let word = &self.line[self.at..end];
                    self.at = end;
                    self.written.word(word)
                }
                None => self.chain(),
            };
        }
        let quote = QUOTES.iter().position(|quote| *quote == byte);
        if let Some((end, placeholder)) = quote.and_then(|quote| self.quoted(quote)) {
            self.at = end;
            return self.written.placeholder(placeholder);
        }
        if let Some((end, placeholder)) = self.path(byte) {
            self.at = end;
            return self.written.placeholder(placeholder);
        }
        self.literal()
    }

    /// One character, or spaces as one.
    fn literal(&mut self) -> Option<()> {
        let rest = &self.line[self.at..];
        let character = rest.chars().next()?;
        if character.is_whitespace() {
            self.at += rest.len() - rest.trim_start().len();
            return self.written.separator(' ');
        }
        self.at += character.len_utf8();
        match SEPARATORS.iter().any(|separator| char::from(*separator) == character) {
            true => self.written.separator(character),
            false => self.written.word(character.encode_utf8(&mut [0; 4])),
        }
    }

    /// A quoted string, if one starts here: its end and its placeholder. Neither an apostrophe nor an inch starts one.
    fn quoted(&mut self, quote: usize) -> Option<(usize, &'static str)> {
        let written = &self.written;
        let is_open = !self.is_json
            && !self.unclosed[quote]
            && !written.ends_in_word()
            && !written.text.ends_with("Error(")
            && !written.text.ends_with("Exception(")
            && self.status(self.at + 1).is_none();
        if !is_open {
            return None;
        }
        let bytes = self.line.as_bytes();
        let mut at = self.at + 1;
        while let Some(byte) = bytes.get(at) {
            let closes = *byte == QUOTES[quote] || QUOTES[quote] == b'`' && *byte == b'\'';
            if closes && !self.is_word_at(at + 1) {
                let placeholder = match (QUOTES[quote], byte) {
                    (b'"', _) => "\"*\"",
                    (b'\'', _) => "'*'",
                    (_, b'\'') => "`*'",
                    _ => "`*`",
                };
                return Some((at + 1, placeholder));
            }
            at += if *byte == b'\\' { 2 } else { 1 };
        }
        self.unclosed[quote] = true;
        None
    }

    /// A path, if one starts here: its end and its placeholder. After a word it is one only if another name and slash follow,
    /// unlike in `input/output` and `job/5`.
    fn path(&self, byte: u8) -> Option<(usize, &'static str)> {
        let written = &self.written;
        let (placeholder, is_relative) = match byte {
            b'/' => ("/path", written.ends_in_word()),
            b'\\' if written.ends_in_drive() => ("\\path", false),
            _ => return None,
        };
        if is_relative && written.text.ends_with(NUMBER) {
            return None;
        }
        // Before the path's end, which may be far, is looked for: it would be for each slash.
        let name =
            self.line[self.at + 1..].split(|c: char| c == '/' || c.is_ascii_digit() || "#@".contains(c)).next()?;
        let next = self.at + 1 + name.len();
        if is_relative && self.byte(next) != Some(b'/') {
            return None;
        }
        let end = self.end_of_path(self.at)?;
        (!is_relative || next < end).then_some((end, placeholder))
    }

    /// The end of the last word of what may be a path or the rest of a URL, if it has any.
    fn end_of_path(&self, start: usize) -> Option<usize> {
        let mut end = None;
        for (at, character) in self.line[start..].char_indices() {
            let after = start + at + character.len_utf8();
            match character {
                '#' => end = Some(after),
                _ if character.is_alphanumeric() => end = Some(after),
                '/' | '\\' | '.' | '_' | '-' | '+' | '~' | '@' | '%' | '=' | '&' | '?' | '$' | '!' | '*' => {}
                ':' if self.is_word_at(after) => {}
                _ => break,
            }
        }
        end
    }

    /// The end of a word that is nothing but letters, too few to be an id, and joined to nothing: most of a message, and what `chain` writes
    /// as it is, after a longer look.
    fn end_of_plain_word(&self) -> Option<usize> {
        let rest = &self.line.as_bytes()[self.at..];
        let letters = span_of(LETTER, rest);
        let ends = |byte: Option<&u8>| byte.is_none_or(|byte| byte.is_ascii_whitespace());
        let is_apart = match rest.get(letters) {
            Some(b'@' | b'/' | b'=') => false,
            Some(byte) if is(JOINT, *byte) => ends(rest.get(letters + 1)),
            Some(byte) => !is_word(*byte),
            None => true,
        };
        let is_word = letters < 8 || letters <= Part::LONGEST && span_of(HEX, rest) < letters;
        (letters > 0 && is_apart && is_word).then_some(self.at + letters)
    }

    /// Words, numbers and ids that are joined.
    fn chain(&mut self) -> Option<()> {
        let end = self.end_of_chain(self.at);
        let chain = &self.line[self.at..end];
        if self.byte(end) == Some(b'@') && self.byte(end + 1).is_some_and(is_word) {
            self.at = self.end_of_chain(end + 1);
            return self.written.placeholder("user@host");
        }
        if let Some(end) = self.end_of_address().or_else(|| self.end_of_base64()) {
            self.at = end;
            return self.written.placeholder(NUMBER);
        }
        if let Some(end) = self.end_of_code(chain, end) {
            let code = &self.line[self.at..end];
            self.at = end;
            return self.written.word(code);
        }
        while self.at < end {
            match self.byte(self.at) {
                Some(joint) if is(JOINT, joint) => self.joint(joint)?,
                _ => self.part()?,
            }
        }
        Some(())
    }

    /// What joins two parts of a chain. What hangs on a number belongs to it: the rest of a uuid, of a pod's name.
    fn joint(&mut self, joint: u8) -> Option<()> {
        self.at += 1;
        if joint != b':' && self.written.ends_in_number() {
            self.at = self.end_of_part();
            return Some(());
        }
        self.written.separator(char::from(joint))
    }

    /// A part of a chain: letters and digits, or a placeholder for digits.
    fn part(&mut self) -> Option<()> {
        let end = self.end_of_part();
        let part = &self.line[self.at..end];
        let rest = &self.line[end..];
        let is_scheme = part.len() <= 12 && part.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_scheme && rest.starts_with("://") && self.is_word_at(end + 3) {
            self.at = self.end_of_path(end + 3)?;
            return self.written.placeholder(&format!("{part}://url"));
        }
        self.at = end;
        if part == "HTTP" && rest.starts_with('/') {
            // The protocol's version says nothing of the failure.
            let version =
                rest[1..].len() - rest[1..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
            if version > 0 && self.is_over_at(end + 1 + version) {
                self.at = end + 1 + version;
            }
        }
        match Part::of(part) {
            Part::Word => self.written.word(part),
            Part::Number if self.written.ends_in_name_of_codes() && is_short_code(part) => self.written.word(part),
            Part::Number => self.written.placeholder(NUMBER),
            Part::Numbered(name) if names_codes(name) && part.len() - name.len() <= 5 => self.written.word(part),
            Part::Numbered(name) => {
                self.written.word(name)?;
                self.written.placeholder(NUMBER)
            }
        }
    }

    fn end_of_part(&self) -> usize {
        let rest = &self.line.as_bytes()[self.at..];
        match rest.first() {
            Some(b'#') => self.at + 1,
            _ => self.at + span_of(LETTER | DIGIT, rest),
        }
    }

    fn end_of_chain(&self, start: usize) -> usize {
        let bytes = self.line.as_bytes();
        let mut end = start;
        loop {
            end += span_of(WORD, &bytes[end..]);
            match bytes[end..] {
                [joint, next, ..] if is(JOINT, joint) && is_word(next) => end += 1,
                _ => return end,
            }
        }
    }

    /// The end of an IPv6 address that starts here, or of something that looks like one.
    fn end_of_address(&self) -> Option<usize> {
        const LONGEST: usize = 46;
        let rest = &self.line.as_bytes()[self.at..];
        let span = span_of(HEX | COLON_OR_DOT, &rest[..rest.len().min(LONGEST)]);
        // Most are none, which is known sooner than an address is.
        if rest[..span].iter().filter(|byte| **byte == b':').count() < 2 {
            return None;
        }
        let address = self.line[self.at..self.at + span].trim_end_matches('.');
        let address = address.strip_suffix(':').unwrap_or(address);
        let end = self.at + address.len();
        let is_joined = self.byte(end).is_some_and(|byte| byte == b'@' || is(JOINT, byte)) && self.is_word_at(end + 1);
        let is_address = address.split(':').all(|group| group.len() <= 4 || group.contains('.'))
            && address.matches(':').count() >= 2
            && !address.ends_with([':', '.'])
            && address.contains(|c: char| c.is_ascii_digit());
        (is_address && !is_joined && !self.is_word_at(end)).then_some(end)
    }

    /// The end of base64 that starts here, padded and of three blocks or more.
    fn end_of_base64(&self) -> Option<usize> {
        const LONGEST: usize = 128;
        let rest = self.line.as_bytes()[self.at..].iter().take(LONGEST);
        let span = rest.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
        let end = self.at + span + self.line[self.at + span..].bytes().take(2).take_while(|byte| *byte == b'=').count();
        let is_padded = span > 12 && end > self.at + span && end % 4 == self.at % 4 && self.is_over_at(end);
        let is_base64 = is_padded && !matches!(Part::of(&self.line[self.at..self.end_of_part()]), Part::Word);
        is_base64.then_some(end)
    }

    /// The end of a code that stays, if this chain is one: of what the code is recognized by too.
    fn end_of_code(&self, chain: &str, end: usize) -> Option<usize> {
        if let Some(status) = self.status(self.at) {
            return Some(status);
        }
        let written = self.written.text.as_str();
        if is_short_code(chain) {
            if is_announced(written) {
                return Some(end);
            }
            if self.byte(end) == Some(b',') && begins_error(written) {
                return Some(end + 1);
            }
        }
        if is_known_code(chain) {
            return Some(end);
        }
        let is_label = (written.is_empty() || written.ends_with(": "))
            && is_label(chain)
            && self.byte(end) == Some(b':')
            && self.line[end + 1..].chars().next().is_none_or(char::is_whitespace);
        is_label.then_some(end + 1)
    }

    /// The end of an HTTP status with the first word of its reason.
    fn status(&self, start: usize) -> Option<usize> {
        let bytes = self.line.as_bytes();
        let [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ', b'A'..=b'Z', b'a'..=b'z', ..] = bytes.get(start..)? else {
            return None;
        };
        let reason = &self.line[start + 4..];
        let end = reason.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(reason.len());
        (matches!(Part::of(&reason[..end]), Part::Word) && self.is_over_at(start + 4 + end)).then_some(start + 4 + end)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.line.as_bytes().get(at).copied()
    }

    /// Whether a letter, a digit or a placeholder for digits stands there, in any script.
    fn is_word_at(&self, at: usize) -> bool {
        match self.byte(at) {
            Some(byte) if byte.is_ascii() => is_word(byte),
            Some(_) => self.line.get(at..).is_some_and(|rest| rest.starts_with(char::is_alphanumeric)),
            None => false,
        }
    }

    /// Whether nothing can be joined to what ends there.
    fn is_over_at(&self, at: usize) -> bool {
        self.line[at..].chars().next().is_none_or(|next| next.is_whitespace() || "\"'`),;]".contains(next))
    }
}

/// The fingerprint as far as it is written.
#[derive(Default)]
struct Written {
    text: String,
    characters: usize,
    /// Where the last placeholder is, if only separators stand after it.
    last: Option<std::ops::Range<usize>>,
}

impl Written {
    /// Writes a token, unless it does not fit any more.
    fn write(&mut self, token: &str) -> Option<()> {
        self.characters += if token.is_ascii() { token.len() } else { token.chars().count() };
        if self.characters > LENGTH {
            return None;
        }
        self.text.push_str(token);
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.last = None;
        self.write(word)
    }

    fn separator(&mut self, separator: char) -> Option<()> {
        self.write(separator.encode_utf8(&mut [0; 4]))
    }

    /// Writes a placeholder, unless the last one is the same.
    fn placeholder(&mut self, placeholder: &str) -> Option<()> {
        if let Some(last) = self.last.clone().filter(|last| self.text[last.clone()] == *placeholder) {
            self.characters -= self.text.len() - last.end;
            self.text.truncate(last.end);
            return Some(());
        }
        let start = self.text.len();
        self.write(placeholder)?;
        self.last = Some(start..self.text.len());
        Some(())
    }

    fn ends_in_word(&self) -> bool {
        self.text.ends_with(|last: char| last.is_alphanumeric() || last == '#')
    }

    /// Whether it ends in a number that is no part of a name.
    fn ends_in_number(&self) -> bool {
        let before = self.text.strip_suffix(NUMBER);
        before.is_some_and(|before| !before.ends_with(|last: char| last.is_ascii_alphanumeric()))
    }

    /// Whether it ends in `HTTP_`, `status_` or the like.
    fn ends_in_name_of_codes(&self) -> bool {
        self.text.strip_suffix('_').is_some_and(|before| {
            names_codes(&before[before.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len()..])
        })
    }

    /// Whether it ends in a drive of Windows: `C:`.
    fn ends_in_drive(&self) -> bool {
        let mut last = self.text.chars().rev();
        last.next() == Some(':')
            && last.next().is_some_and(|letter| letter.is_ascii_alphabetic())
            && last.next().is_none_or(|before| !before.is_alphanumeric())
    }
}

/// What a run of letters and digits is.
enum Part<'a> {
    Word,
    Number,
    /// A name with a number behind it.
    Numbered(&'a str),
}

impl Part<'_> {
    /// The longest word. What is longer is a token.
    const LONGEST: usize = 40;

    fn of(part: &str) -> Part<'_> {
        let has_digit = part.bytes().any(|byte| byte.is_ascii_digit());
        if !has_digit && part.len() < 8 && part != NUMBER {
            return Part::Word;
        }
        let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_error = || name == "E" && (5..=6).contains(&part.len()) || is_error(part);
        if part.len() > Part::LONGEST || part == NUMBER {
            Part::Number
        } else if has_digit && is_error() {
            Part::Word
        } else if is_hex && part.len() >= if has_digit { 6 } else { 8 } {
            Part::Number
        } else if !has_digit {
            Part::Word
        } else if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            Part::Numbered(name)
        } else {
            Part::Number
        }
    }
}

const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const HEX: u8 = 4;
const PLACEHOLDER: u8 = 8;
/// What joins the parts of a name, a number or an id, between two of them.
const JOINT: u8 = 16;
const COLON_OR_DOT: u8 = 32;
const WORD: u8 = LETTER | DIGIT | PLACEHOLDER;

/// What each byte is: looked up in a table, since each byte of a message is asked several times.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'f' | b'A'..=b'F' => LETTER | HEX,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT | HEX,
            b'#' => PLACEHOLDER,
            b':' | b'.' => JOINT | COLON_OR_DOT,
            b'-' | b'_' | b'+' => JOINT,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};

fn is(kinds: u8, byte: u8) -> bool {
    KINDS[usize::from(byte)] & kinds != 0
}

/// How many bytes of these kinds there are at the start.
fn span_of(kinds: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is(kinds, *byte)).unwrap_or(bytes.len())
}

fn is_word(byte: u8) -> bool {
    is(WORD, byte)
}

/// Whether a name ends as those of errors do.
fn is_error(name: &str) -> bool {
    const ENDS: [&str; 10] = [
        "Error",
        "Exception",
        "Failure",
        "Fault",
        "Timeout",
        "NotFound",
        "Exceeded",
        "Denied",
        "Expired",
        "Unavailable",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether the text of an error begins: `OperationalError: (`.
fn begins_error(written: &str) -> bool {
    let name = written.strip_suffix('(').unwrap_or_default().trim_end_matches([':', ' ']);
    name.ends_with("Error") || name.ends_with("Exception")
}

/// Whether a number that is glued to a name is a code.
fn names_codes(name: &str) -> bool {
    const NAMES: [&str; 6] = ["http", "status", "code", "errno", "err", "error"];
    // Most are none.
    if !name.ends_with(['p', 's', 'e', 'o', 'r', 'P', 'S', 'E', 'O', 'R']) {
        return false;
    }
    let word = last_of_camel(name);
    NAMES.iter().any(|other| word.eq_ignore_ascii_case(other)) && !name.eq_ignore_ascii_case("code")
}

/// A code that says of itself whose it is.
fn is_known_code(code: &str) -> bool {
    const OF_ORACLE: [&str; 6] = ["ORA", "TNS", "PLS", "DPI", "DPY", "NJS"];
    let bytes = code.as_bytes();
    let are_digits = |bytes: &[u8]| matches!(bytes.len(), 3..=5) && bytes.iter().all(u8::is_ascii_digit);
    let of_oracle = || {
        code.split_once('-').is_some_and(|(name, number)| OF_ORACLE.contains(&name) && are_digits(number.as_bytes()))
    };
    let has_severity = || {
        let [code @ .., b'C' | b'E' | b'I' | b'N' | b'S' | b'W'] = bytes else { return false };
        let letters = code.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        (3..=6).contains(&letters) && code.len() - letters > 3 && are_digits(&code[letters..])
    };
    let is_sqlstate = || matches!(bytes, [a, b, b'P' | b'S', c, d] if [a, b, c, d].into_iter().all(u8::is_ascii_digit));
    let [first, second, .., last] = bytes else { return false };
    let may_be_one = [first, second, last].into_iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    may_be_one && (5..=12).contains(&bytes.len()) && (of_oracle() || has_severity() || is_sqlstate())
}

/// A number of at most five digits, or a code of capitals and digits.
fn is_short_code(code: &str) -> bool {
    let number = code.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let is_number = (1..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && code.len() <= 8 || is_sqlstate(code)
}

fn is_label(code: &str) -> bool {
    let number = code.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let prefix = code.len() - number.len();
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_number = (2..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (1..=6).contains(&prefix) || is_sqlstate(code)
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == 5
        && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && code.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether the last word says that a code follows.
fn is_announced(written: &str) -> bool {
    let mut rest = written;
    loop {
        let unsigned = rest.strip_suffix("=-").unwrap_or(rest);
        let word_end = unsigned.trim_end_matches([' ', ':', '=', '[', '(', '"', '\'', '`']);
        let gap = &rest[word_end.len()..];
        let before = word_end.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let word = last_of_camel(&word_end[before.len()..]);
        let is_one_of = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other));
        if gap.is_empty() {
            return false;
        } else if is_one_of(&["of", "is", "was"]) {
            rest = before;
        } else {
            return is_one_of(&["http", "status", "code", "exitcode", "errno", "sqlcode", "sqlstate", "signal"])
                || is_one_of(&["error"]) && !gap.contains(':');
        }
    }
}

/// `Code` of `statusCode`.
fn last_of_camel(word: &str) -> &str {
    let bytes = word.as_bytes();
    let start = (1..bytes.len()).rev().find(|at| bytes[*at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase());
    &word[start.unwrap_or_default()..]
}
