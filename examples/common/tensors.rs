//! Parameters as safetensors files, which PyTorch, burn and candle read and write.
//!
//! Such a file is the length of its header (8 bytes, little-endian), the header (JSON), and the elements. The crate
//! safetensors is not used: its JSON parser and its derives would take a tenth of a first build.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use gradwire::Layout;

/// Writes parameters to a file, a tensor each.
pub fn export(layout: &Layout, params: &[f32], path: &Path) -> Result<(), String> {
    std::fs::write(path, encode(layout, params)).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads parameters from a file: every tensor of the layout, by name.
pub fn import(layout: &Layout, path: &Path, params: &mut [f32]) -> Result<(), String> {
    let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    decode(layout, &file, params).map_err(|error| {
        match error.starts_with("header: ") || error.starts_with("expected ") {
            true => format!("{}: expected a safetensors file: {error}", path.display()),
            false => format!("{}: {error}", path.display()),
        }
    })
}

fn encode(layout: &Layout, params: &[f32]) -> Vec<u8> {
    let tensors = layout.tensors().iter().map(|tensor| {
        let Range { start, end } = tensor.range();
        let (name, shape) = (quoted(tensor.name()), tensor.shape());
        format!("{name}:{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{},{}]}}", 4 * start, 4 * end)
    });
    let mut header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    // The elements begin at a multiple of their size.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(params.iter().flat_map(|x| x.to_le_bytes()));
    file
}

fn decode(layout: &Layout, file: &[u8], params: &mut [f32]) -> Result<(), String> {
    let (length, rest) = file.split_first_chunk().ok_or("expected the length of a header")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let (header, data) = rest.split_at(length.ok_or("expected a header within the file")?);
    let header = std::str::from_utf8(header).map_err(|error| format!("header: {error}"))?;
    let found = Header { rest: header }.tensors().map_err(|error| format!("header: {error}"))?;
    for tensor in layout.tensors() {
        let (name, shape) = (tensor.name(), tensor.shape());
        let found = found.get(name).ok_or_else(|| missing(layout, name, &found))?;
        if found.dtype != "F32" || found.shape != shape {
            return Err(format!("{name}: expected F32 of {shape:?}, got {} of {:?}", found.dtype, found.shape));
        }
        let bytes = data.get(found.range.clone()).filter(|bytes| bytes.len() == 4 * tensor.range().len());
        let bytes = bytes.ok_or_else(|| format!("{name}: bytes {:?} do not hold it", found.range))?;
        for (into, bytes) in params[tensor.range()].iter_mut().zip(bytes.as_chunks().0) {
            *into = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

/// The message for a tensor that a file does not have. It lists the file's tensors.
fn missing(layout: &Layout, name: &str, found: &BTreeMap<String, Found>) -> String {
    const SHOWN: usize = 12;
    let mut names = found.keys().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if found.is_empty() {
        names.push_str("no tensors");
    } else if found.len() > SHOWN {
        names.push_str(&format!(" and {} more", found.len() - SHOWN));
    }
    // A model within another one: PyTorch's DistributedDataParallel puts `module.` in front of all names.
    let prefix = found.keys().find_map(|found| found.strip_suffix(name)).filter(|prefix| {
        layout.tensors().iter().all(|tensor| found.contains_key(&format!("{prefix}{}", tensor.name())))
    });
    let advice = match prefix {
        Some("module.") => "; save model.module instead of model, or remove \"module.\" from the names".to_string(),
        Some(prefix) => format!("; remove {prefix:?} from the names"),
        None => String::new(),
    };
    format!("{name}: the file has no such tensor, it has {names}{advice}")
}

/// Text as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A tensor as a header describes it.
#[derive(Debug, Default)]
struct Found {
    dtype: String,
    shape: Vec<usize>,
    /// Of the bytes after the header.
    range: Range<usize>,
}

/// A header that is being read. It is the part of JSON that the format allows: objects, texts, lists of whole numbers.
struct Header<'a> {
    rest: &'a str,
}

impl<'a> Header<'a> {
    fn tensors(&mut self) -> Result<BTreeMap<String, Found>, String> {
        let mut all = BTreeMap::new();
        self.object(&mut |header, name| {
            // Texts about the file.
            if name == "__metadata__" {
                return header.object(&mut |header, _| header.text().map(drop));
            }
            let mut tensor = Found::default();
            header.object(&mut |header, key| {
                match key.as_str() {
                    "dtype" => tensor.dtype = header.text()?,
                    "shape" => tensor.shape = header.numbers()?,
                    "data_offsets" => match header.numbers()?[..] {
                        [start, end] => tensor.range = start..end,
                        _ => return Err("data_offsets: expected two numbers".into()),
                    },
                    _ => return Err(format!("expected dtype, shape or data_offsets, got {key:?}")),
                }
                Ok(())
            })?;
            match all.insert(name.clone(), tensor) {
                Some(_) => Err(format!("{name:?} is there twice")),
                None => Ok(()),
            }
        })?;
        match self.skip_space() {
            "" => Ok(all),
            rest => Err(format!("expected its end, got {:?}", rest.chars().next())),
        }
    }

    /// The next symbol and all after it.
    fn skip_space(&mut self) -> &'a str {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest
    }

    /// Passes a symbol, if it is next.
    fn has(&mut self, symbol: char) -> bool {
        let rest = self.skip_space();
        let after = rest.strip_prefix(symbol);
        self.rest = after.unwrap_or(rest);
        after.is_some()
    }

    fn expect(&mut self, symbol: char) -> Result<(), String> {
        match self.has(symbol) {
            true => Ok(()),
            false => Err(format!("expected {symbol:?}, got {:?}", self.rest.chars().next())),
        }
    }

    /// `member` reads each value, and is told its name.
    fn object(&mut self, member: &mut dyn FnMut(&mut Self, String) -> Result<(), String>) -> Result<(), String> {
        self.expect('{')?;
        if self.has('}') {
            return Ok(());
        }
        loop {
            let name = self.text()?;
            self.expect(':')?;
            member(self, name)?;
            if self.has('}') {
                return Ok(());
            }
            self.expect(',')?;
        }
    }

    fn numbers(&mut self) -> Result<Vec<usize>, String> {
        let mut all = Vec::new();
        self.expect('[')?;
        if self.has(']') {
            return Ok(all);
        }
        loop {
            let rest = self.skip_space();
            let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
            all.push(digits.parse().map_err(|_| format!("expected a whole number, got {digits:?}"))?);
            self.rest = rest;
            if self.has(']') {
                return Ok(all);
            }
            self.expect(',')?;
        }
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut units = Vec::new();
        let mut chars = self.rest.chars();
        let hex = |chars: &mut std::str::Chars<'_>| {
            let digits = chars.as_str().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *chars = chars.as_str()[4..].chars();
            u16::from_str_radix(digits, 16).ok()
        };
        loop {
            let c = match chars.next().ok_or("a text does not end")? {
                '"' => break,
                '\\' => match chars.next().ok_or("a text does not end")? {
                    c @ ('"' | '\\' | '/') => c,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    // Half of a pair, maybe.
                    'u' => {
                        units.push(hex(&mut chars).ok_or("\\u: expected four digits")?);
                        continue;
                    }
                    c => return Err(format!("expected an escape, got {c:?}")),
                },
                c => c,
            };
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
        self.rest = chars.as_str();
        String::from_utf16(&units).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn layout() -> Layout {
        Layout::new().tensor("dense.weight", &[2, 2]).tensor("a \"name\" \\ with é, 😀\n", &[3]).tensor("one", &[1])
    }

    fn file(header: &str, floats: &[f32]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(floats.iter().flat_map(|x| x.to_le_bytes()));
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let params = [1.0, -2.5, f32::MAX, 0.0, 4.0, 5.0, 6.0, f32::MIN_POSITIVE];
        let mut back = [0.0; 8];
        decode(&layout(), &encode(&layout(), &params), &mut back).unwrap();
        assert_eq!(back, params);
        let small = Layout::new().tensor("x", &[1, 2]);
        let header = r#"{"x":{"dtype":"F32","shape":[1, 2],"data_offsets":[0,8]}}"#;
        assert_eq!(encode(&small, &[1.0, 2.0]), file(&format!("{header}       "), &[1.0, 2.0]));
    }

    /// Another program writes another order, text about the file, tensors beyond the layout, escapes and spaces.
    #[test]
    fn files_of_others_are_read() {
        let header = r#" {"__metadata__": {"format": "pt", "by": "\u00e9"},
            "other": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
            "more": {"dtype": "U8", "shape": [0, 2], "data_offsets": [2, 2]},
            "\u0078\ud83d\ude00\/": {"data_offsets": [4, 12], "shape": [2], "dtype": "F32"}} "#;
        let mut params = [0.0; 2];
        decode(&Layout::new().tensor("x😀/", &[2]), &file(header, &[9.0, 1.0, 2.0]), &mut params).unwrap();
        assert_eq!(params, [1.0, 2.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |file: &[u8], expected: &str| {
            let error = decode(&Layout::new().tensor("x", &[2]), file, &mut [0.0; 2]).unwrap_err();
            assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        };
        let of = |dtype: &str, shape: &str, offsets: &str| {
            let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
            file(&header, &[1.0, 2.0])
        };
        refused(&[1, 2, 3], "expected the length of a header");
        refused(&u64::MAX.to_le_bytes(), "expected a header within the file");
        refused(&file("\u{0}", &[]), "header: expected '{', got Some('\\0')");
        refused(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff], "header: invalid utf-8");
        refused(&file("{}", &[]), "x: the file has no such tensor, it has no tensors");
        refused(&file("{} x", &[]), "expected its end, got Some('x')");
        refused(&of("F64", "[2]", "[0,8]"), "x: expected F32 of [2], got F64 of [2]");
        refused(&of("F32", "[1,2]", "[0,8]"), "x: expected F32 of [2], got F32 of [1, 2]");
        refused(&of("F32", "[2]", "[0,4]"), "x: bytes 0..4 do not hold it");
        refused(&of("F32", "[2]", "[4,12]"), "x: bytes 4..12 do not hold it");
        refused(&of("F32", "[2]", "[8,0]"), "x: bytes 8..0 do not hold it");
        refused(&of("F32", "[2]", "[0]"), "data_offsets: expected two numbers");
        refused(&of("F32", "[99999999999999999999]", "[0,8]"), "expected a whole number");
        refused(&of("F32", "[-2]", "[0,8]"), "expected a whole number, got \"\"");
        refused(&of("F32", "[2 3]", "[0,8]"), "expected ','");
        refused(&of(r"\ud83d", "[2]", "[0,8]"), "utf-16");
        refused(&of(r"\u12é4", "[2]", "[0,8]"), "\\u: expected four digits");
        refused(&of(r"\x", "[2]", "[0,8]"), "expected an escape, got 'x'");
        refused(&file(r#"{"x":{},"x":{}}"#, &[]), "\"x\" is there twice");
        refused(&file(r#"{"x":{"dtype":{}}}"#, &[]), "expected '\"', got Some('{')");
        refused(&file(r#"{"x"#, &[]), "a text does not end");
        // Depth is limited by the format: no recursion.
        refused(&file(&"[".repeat(1 << 20), &[]), "expected '{'");
    }
    /// The error for a missing tensor lists the tensors that are there, and the prefix that all names have.
    #[test]
    fn other_names_are_listed() {
        let message = |names: &[&str]| {
            let entry = |name: &&str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
            let header = format!("{{{}}}", names.iter().map(entry).collect::<Vec<_>>().join(","));
            let layout = Layout::new().tensor("a", &[1]).tensor("b", &[1]);
            decode(&layout, &file(&header, &[1.0]), &mut [0.0; 2]).unwrap_err()
        };
        let advice = "a: the file has no such tensor, it has module.a, module.b; save model.module instead of model, or \
                      remove \"module.\" from the names";
        assert_eq!(message(&["module.a", "module.b"]), advice);
        assert_eq!(
            message(&["net.b", "net.a"]),
            "a: the file has no such tensor, it has net.a, net.b; remove \"net.\" from the names"
        );
        assert_eq!(message(&["a", "c", "net.b"]), "b: the file has no such tensor, it has a, c, net.b");
        let many: Vec<String> = (10..30).map(|i| format!("t{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(message(&many).ends_with("t20, t21 and 8 more"), "{}", message(&many));
    }
}
