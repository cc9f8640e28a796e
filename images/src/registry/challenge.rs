//! `WWW-Authenticate` (<https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>): foreign bytes, so the parser takes
//! anything, never panics, and never looks at a byte twice.

/// What a server asks for before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Its parameters; names in lower case. Of a repeated one the first counts.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one header, which may carry several challenges. What is malformed is left out.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Scanner { text: header };
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        if rest.text.is_empty() {
            return challenges;
        }
        let name = rest.token();
        if name.is_empty() {
            rest.bump();
            continue;
        }
        rest.skip(|c| c.is_ascii_whitespace());
        if rest.text.starts_with('=') {
            rest.bump();
            rest.skip(|c| c.is_ascii_whitespace());
            let value = rest.value();
            if let Some(challenge) = challenges.last_mut() {
                let name = name.to_ascii_lowercase();
                if challenge.get(&name).is_none() {
                    challenge.parameters.push((name, value));
                }
            }
        } else {
            challenges.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
}

impl<'a> Scanner<'a> {
    fn bump(&mut self) {
        let mut chars = self.text.chars();
        chars.next();
        self.text = chars.as_str();
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.text = self.text.trim_start_matches(what);
    }

    fn token(&mut self) -> &'a str {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.text.find(|c| !is_token(c)).unwrap_or(self.text.len());
        let (token, rest) = self.text.split_at(end);
        self.text = rest;
        token
    }

    /// A quoted string, or what stands before the next comma or space (servers forget the quotes).
    fn value(&mut self) -> String {
        if !self.text.starts_with('"') {
            let end = self.text.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(self.text.len());
            let (value, rest) = self.text.split_at(end);
            self.text = rest;
            return value.to_owned();
        }
        self.bump();
        let mut value = String::new();
        let mut chars = self.text.chars();
        loop {
            match chars.next() {
                None | Some('"') => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        }
        self.text = chars.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(text: &str) -> Challenge {
        let challenges = parse_challenges(text);
        challenges.into_iter().find(|c| c.scheme == "bearer").unwrap()
    }

    #[test]
    fn a_token_challenge() {
        let c = bearer(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#,
        );
        assert_eq!(c.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(c.get("service"), Some("registry.docker.io"));
        assert_eq!(c.get("scope"), Some("repository:library/debian:pull,push"));
    }

    #[test]
    fn several_challenges_and_loose_spelling() {
        let all = parse_challenges(r#"Negotiate, BASIC Realm = "a \"b\" c" , charset=UTF-8, Bearer realm=x,realm=y"#);
        let schemes: Vec<_> = all.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].get("realm"), Some("a \"b\" c"));
        assert_eq!(all[1].get("charset"), Some("UTF-8"));
        assert_eq!(all[2].get("realm"), Some("x"));
    }

    #[test]
    fn rubbish_is_left_out() {
        assert!(parse_challenges("").is_empty());
        assert!(parse_challenges(" ,,; \u{1F600}").is_empty());
        assert_eq!(parse_challenges("realm=\"x\"").len(), 0);
        assert_eq!(bearer("Bearer realm=\"unfinished").get("realm"), Some("unfinished"));
        assert_eq!(bearer("Bearer realm=\"x\\").get("realm"), Some("x"));
    }

    proptest! {
        #[test]
        fn anything_is_taken(text in ".{0,200}") {
            for challenge in parse_challenges(&text) {
                prop_assert!(!challenge.scheme.is_empty());
            }
        }

        #[test]
        fn what_is_quoted_comes_back(realm in "[ -~]{0,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer service=s, realm=\"{quoted}\"");
            let challenge = bearer(&header);
            prop_assert_eq!(challenge.get("realm"), Some(realm.as_str()));
        }
    }
}
