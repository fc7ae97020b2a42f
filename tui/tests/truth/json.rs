//! The JSON objects of dtop, as values.

/// A value. Objects are lists of members, in their order.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    pub(crate) fn parse(text: &str) -> Self {
        let (value, rest) = value(text.trim_start());
        assert!(rest.trim().is_empty(), "after the value: {rest}");
        value
    }

    /// The value of a member.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> &Self {
        let Self::Object(members) = self else { panic!("{key} of {self:?}") };
        &members.iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("{key} in {self:?}")).1
    }

    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> f64 {
        let Self::Number(number) = self.get(key) else { panic!("{key} in {self:?}") };
        *number
    }

    #[track_caller]
    pub(crate) fn text(&self, key: &str) -> &str {
        let Self::Text(text) = self.get(key) else { panic!("{key} in {self:?}") };
        text
    }

    pub(crate) fn is_null(&self, key: &str) -> bool {
        matches!(self.get(key), Self::Null)
    }

    #[track_caller]
    pub(crate) fn nodes(&self) -> &[Self] {
        let Self::List(nodes) = self.get("nodes") else { panic!("{self:?}") };
        nodes
    }

    /// The node of a rank, if dtop knows it.
    pub(crate) fn node(&self, rank: u32) -> Option<&Self> {
        self.nodes().iter().find(|node| node.number("rank") == f64::from(rank))
    }

    /// The steps between which the rates of this node are measured. `None`: there are none yet.
    #[track_caller]
    pub(crate) fn rate_steps(&self) -> Option<(usize, usize)> {
        let Self::List(ends) = self.get("rate_steps") else { panic!("{self:?}") };
        let [Self::Number(from), Self::Number(to)] = ends[..] else { panic!("{self:?}") };
        (to > from).then_some((from as usize, to as usize))
    }

    pub(crate) fn state(&self, rank: u32) -> &str {
        self.node(rank).map_or("none", |node| node.text("state"))
    }

    pub(crate) fn health(&self) -> &str {
        self.text("health")
    }
}

fn value(text: &str) -> (Json, &str) {
    match text.as_bytes().first() {
        Some(b'{') => object(&text[1..]),
        Some(b'[') => list(&text[1..]),
        Some(b'"') => {
            let (value, rest) = string(text);
            (Json::Text(value), rest)
        }
        _ => {
            let end = text.find([',', '}', ']']).unwrap_or(text.len());
            let value = match text[..end].trim() {
                "null" => Json::Null,
                "true" | "false" => Json::Bool,
                number => Json::Number(number.parse().unwrap_or_else(|_| panic!("{number}"))),
            };
            (value, &text[end..])
        }
    }
}

fn object(mut rest: &str) -> (Json, &str) {
    let mut members = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return (Json::Object(members), rest);
        }
        let (key, after) = string(rest);
        let (member, after) = value(&after[1..]);
        members.push((key, member));
        rest = after;
    }
}

fn list(mut rest: &str) -> (Json, &str) {
    let mut values = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix(']') {
            return (Json::List(values), rest);
        }
        let (one, after) = value(rest);
        values.push(one);
        rest = after;
    }
}

/// A quoted text and what follows it. Escapes stay as they are.
fn string(text: &str) -> (String, &str) {
    let text = text.strip_prefix('"').unwrap_or_else(|| panic!("{text}"));
    let mut before = ' ';
    let end = text.find(|c| {
        let ends = c == '"' && before != '\\';
        before = c;
        ends
    });
    let end = end.unwrap_or_else(|| panic!("{text}"));
    (text[..end].to_string(), &text[end + 1..])
}
