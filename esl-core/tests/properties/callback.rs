//! Callback URLs.

use esl_core::{CallbackPolicy, CallbackUrl};
use proptest::prelude::*;

use crate::config;

/// Texts that come near to being URLs.
fn near_url() -> impl Strategy<Value = String> {
    let scheme =
        prop_oneof![Just("https://"), Just("HTTPS:/"), Just("http://"), Just("//"), Just("ftp://")];
    let user = prop_oneof![8 => Just(""), 1 => Just("@"), 1 => Just("a:b@")];
    let host = prop_oneof![
        "[a-zA-Z0-9._%-]{1,20}",
        "[a-z]{1,8}\\.[a-z]{2,5}\\.?",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
        "0x[0-9a-f]{1,8}",
        "\\[[0-9a-f:.]{2,20}\\]",
        "\\PC{1,8}\\.example",
    ];
    let port = prop_oneof![4 => Just(String::new()), 1 => "[0-9]{0,6}".prop_map(|port| format!(":{port}"))];
    (scheme, user, host, port, "([/?#]\\PC{0,30})?")
        .prop_map(|(scheme, user, host, port, rest)| format!("{scheme}{user}{host}{port}{rest}"))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_url_that_was_kept_is_kept_as_it_is(text in prop_oneof![near_url(), "\\PC{0,60}"]) {
        for policy in [CallbackPolicy::public(), CallbackPolicy::allow_private()] {
            if let Ok(url) = CallbackUrl::parse(&text, &policy) {
                let again = CallbackUrl::parse(&url.to_string(), &policy);
                prop_assert_eq!(again.as_ref(), Ok(&url));
                prop_assert!(url.as_str().len() <= CallbackUrl::LENGTH_MAX);
            }
        }
    }

    #[test]
    fn what_is_public_is_allowed_where_all_is(text in near_url()) {
        if let Ok(url) = CallbackUrl::parse(&text, &CallbackPolicy::public()) {
            prop_assert!(url.as_str().starts_with("https://"));
            prop_assert_eq!(CallbackUrl::parse(&text, &CallbackPolicy::allow_private()), Ok(url));
        }
    }
}
