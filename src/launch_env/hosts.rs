//! Lists of hosts as Slurm writes them: `node[001-004,7],rack[1-2]slot[1,3]-ib,login`.
//!
//! ```text
//! list    = host *("," host)
//! host    = 1*(text / "[" numbers "]")
//! numbers = range *("," range)
//! range   = digits ["-" digits]         ; all numbers of a range have the width of its first digits
//! text    = characters other than "[", "]", "," and white space
//! ```

/// The first host of a list. `None`: the text is not a valid list. All of it is checked.
pub(super) fn first_host(list: &str) -> Option<String> {
    let mut hosts = split(list)?.into_iter().map(first_of);
    let first = hosts.next()??;
    hosts.all(|host| host.is_some()).then_some(first)
}

/// Splits a list at the commas outside of brackets.
fn split(list: &str) -> Option<Vec<&str>> {
    let (mut hosts, mut inside, mut start) = (Vec::new(), false, 0);
    for (at, c) in list.char_indices() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return None,
            ',' if !inside => {
                hosts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    hosts.push(&list[start..]);
    (!inside).then_some(hosts)
}

/// The first host of an entry. `None`: the entry does not fit the grammar.
fn first_of(entry: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = entry;
    while let Some((text, after)) = rest.split_once('[') {
        let (numbers, after) = after.split_once(']')?;
        host += text;
        host += first_number(numbers)?;
        rest = after;
    }
    host += rest;
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}

/// The first number of the text in brackets, with its leading zeros.
fn first_number(numbers: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_range = |range: &str| match range.split_once('-') {
        None => is_number(range),
        Some((low, high)) => is_number(low) && is_number(high) && low.parse::<u64>().ok() <= high.parse().ok(),
    };
    numbers.split(',').all(is_range).then(|| numbers.split([',', '-']).next())?
}
