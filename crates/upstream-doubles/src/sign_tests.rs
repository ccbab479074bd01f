//! Every signature vector of the contracts.

use super::*;

const APP_SECRET: &str = "demo-app-secret";
const DATE: &str = "Wed, 01 May 2024 12:00:00 GMT";
const PATH: &str = "/v3/appnotificaciones/invitaciones";
const PUT_BODY: &str = r#"{"Callback":"https://hooks.example.test/acs","Secret":"whop-demo-secret-0001","Description":"demo","Activo":true,"HeaderCustom01":{"Name":"X-Env","Value":"dev"},"HeaderCustom02":null,"HeaderCustom03":null}"#;
const RC_SECRET: &str = "rc-demo-secret-0123456789";
const RC_BODY: &str = r#"{"id":"6f1c2f0e-3b57-4a6e-9d0a-5f2b8f1f7c11","resource":"event","type":"webhook_config","action":"test","data":{"id":"cfg-77","resource":"webhook_config"},"state":"pending","retries":0}"#;
const RC_HEADER: &str = "t=1700000000,s=ebim8u7il0IXP4cY7YPA3CgcORLdzh0TE8witi0xivQ=";

#[test]
fn autocosmos_a_get_with_date() {
    let request = AcsRequest {
        method: "get",
        digest: "",
        date: DATE,
        acs_headers: &[],
        path_and_query: PATH,
    };
    assert_eq!(request.string_to_sign(), format!("GET\n\n{DATE}\n{PATH}"));
    assert_eq!(
        request.mac(APP_SECRET),
        "IN5egbiLsrkLjKLxVc8XA5x25eVvoW+ojsfYonwSF4E="
    );
}

#[test]
fn autocosmos_b_get_with_x_acs_date() {
    let headers = [("X-ACS-Date".to_owned(), format!(" {DATE} "))];
    let request = AcsRequest {
        method: "GET",
        digest: "",
        date: "",
        acs_headers: &headers,
        path_and_query: PATH,
    };
    assert_eq!(
        request.string_to_sign(),
        format!("GET\n\n\nx-acs-date:{DATE}\n{PATH}")
    );
    assert_eq!(
        request.mac(APP_SECRET),
        "DFRjHJaDoeqW/ja4n1zFa/CXCp86ZWnvRRJVt7zVwrg="
    );
}

#[test]
fn autocosmos_c_put_with_digest() {
    assert_eq!(PUT_BODY.len(), 205);
    let digest = digest_sha256(PUT_BODY.as_bytes());
    assert_eq!(digest, "sha-256=b8NrqmGTqCpNrGkHpzjGvCNY+yo2vkt5ZJuPROkhWxQ=");
    let request = AcsRequest {
        method: "PUT",
        digest: &digest,
        date: DATE,
        acs_headers: &[],
        path_and_query: PATH,
    };
    assert_eq!(request.string_to_sign(), format!("PUT\n{digest}\n{DATE}\n{PATH}"));
    assert_eq!(
        request.mac(APP_SECRET),
        "oY/o9NByPT92ynU0O/s67C48k1nLQ44LFXXrVvkIoAI="
    );
}

#[test]
fn digests_of_other_bodies_or_algorithms_do_not_match() {
    assert!(digest_matches(&digest_sha256(b"a"), b"a"));
    assert!(digest_matches(
        &format!("SHA-512={}", base64(&Sha512::digest(b"a"))),
        b"a"
    ));
    assert!(!digest_matches(&digest_sha256(b"a"), b"b"));
    assert!(!digest_matches("md5=DMF1ucDxtqgxw5niaXcmYQ==", b"a"));
    assert!(!digest_matches("sha-256", b"a"));
}

#[test]
fn autocosmos_delivery_table() {
    const SECRET: &str = "whop-demo-secret-0001";
    const HOOK: &str = "3f2a9c1e-77aa-4d0b-8c55-0b1f6f7e9d10";
    const TIME: &str = "2024-05-01T12:00:00Z";
    let rows = [
        (
            "",
            "Omwk0uLUu5CrrslyNhv68/bEtpTjbxN2JBekNy+OBhc=",
            "3a6c24d2e2d4bb90abaec972361bfaf3f6c4b694e36f13762417a4372f8e0617",
        ),
        (
            "\n",
            "RGuNSyXfRemwyC4Ac42wbiXnM3bVPWpoJIYDYCcy2co=",
            "446b8d4b25df45e9b0c82e00738db06e25e73376d53d6a68248603602732d9ca",
        ),
        (
            ".",
            "3ppC4N79DrnHzF0wKpzeB7U4j2wnBLh3yY1sM3zkRSI=",
            "de9a42e0defd0eb9c7cc5d302a9cde07b5388f6c2704b877c98d6c337ce44522",
        ),
        (
            "|",
            "ihQ4EpPRfuvXlG0U8h05FtBcToxP4A476/PG6X6eQL0=",
            "8a14381293d17eebd7946d14f21d3916d05c4e8c4fe00e3bebf3c6e97e9e40bd",
        ),
    ];
    for (separator, in_base64, in_hex) in rows {
        let scheme = |encoding| DeliverySignature {
            separator: separator.to_owned(),
            encoding,
        };
        let sign = |encoding| scheme(encoding).sign(SECRET, HOOK, TIME, Some("invitaciones"));
        assert_eq!(sign(Encoding::Base64), in_base64, "separator {separator:?}");
        assert_eq!(sign(Encoding::Hex), in_hex, "separator {separator:?}");
    }
    let without_topic = [
        ("", "75U3Tjxx1uud/ttix83IJAUBePLaLou42Oq3gEVAvHg="),
        ("\n", "Qrq6/w+LWzNLxKHwqxuRKDZg3Rdome/ulykvyVy85JY="),
    ];
    for (separator, expected) in without_topic {
        let scheme = DeliverySignature {
            separator: separator.to_owned(),
            encoding: Encoding::Base64,
        };
        assert_eq!(
            scheme.sign(SECRET, HOOK, TIME, None),
            expected,
            "separator {separator:?}"
        );
    }
}

#[test]
fn ricloud_first_vector() {
    assert_eq!(RC_BODY.len(), 185);
    assert_eq!(
        hex(&Sha256::digest(RC_BODY)),
        "fd66f763830d64f425e71497966020946750ad8881586e18c73f1140f517b0b1"
    );
    assert_eq!(
        hex(&hmac_sha256(
            RC_SECRET.as_bytes(),
            &[b"1700000000.", RC_BODY.as_bytes()]
        )),
        "79b8a6f2eee29742173f8718ed83c0dc281c3912ddce1d1313cc22b62d318af4"
    );
    assert_eq!(
        ricloud_signature(RC_SECRET, 1_700_000_000, RC_BODY.as_bytes()),
        RC_HEADER
    );
    assert_eq!(
        verify_ricloud(RC_SECRET, RC_HEADER, RC_BODY.as_bytes(), 1_700_000_600),
        Ok(())
    );
}

#[test]
fn ricloud_second_vector_is_not_ascii() {
    let body = r#"{"id":"a1","resource":"event","type":"task","action":"failed","data":{"error":"żółw"}}"#;
    assert_eq!(body.len(), 89);
    assert_eq!(
        ricloud_signature(RC_SECRET, 1_700_000_000, body.as_bytes()),
        "t=1700000000,s=NyvCXqZkXH7n/4m6wj/ATpFw9rISWZosNX8oH/ikCVw="
    );
}

#[test]
fn ricloud_negative_vector() {
    let longer = format!("{RC_BODY} ");
    assert_eq!(
        ricloud_signature(RC_SECRET, 1_700_000_000, longer.as_bytes()),
        "t=1700000000,s=LjvX16nen7g58ipw9MP2mygxhtpMBqZJmYnxGfw9CSg="
    );
    let judge = |header: &str, body: &str, now| verify_ricloud(RC_SECRET, header, body.as_bytes(), now);
    assert_eq!(judge(RC_HEADER, &longer, 1_700_000_000), Err(Refusal::Mismatch));
    assert_eq!(judge(RC_HEADER, RC_BODY, 1_700_000_601), Err(Refusal::Stale));
    assert_eq!(
        judge(RC_HEADER, RC_BODY, 1_600_000_000),
        Ok(()),
        "the future is not refused"
    );
    assert_eq!(judge("s=x,t=1", RC_BODY, 0), Err(Refusal::Missing));
    assert_eq!(judge("", RC_BODY, 0), Err(Refusal::Missing));
}

#[test]
fn thulium_basic_values() {
    assert_eq!(
        basic("api_demo", "s3cr3t pass"),
        "Basic YXBpX2RlbW86czNjcjN0IHBhc3M="
    );
    assert_eq!(basic("hookuser", "hookpass"), "Basic aG9va3VzZXI6aG9va3Bhc3M=");
    assert_eq!(
        parse_basic("Basic YXBpX2RlbW86czNjcjN0IHBhc3M="),
        Some(("api_demo".to_owned(), "s3cr3t pass".to_owned()))
    );
    assert_eq!(parse_basic("Bearer YXBpX2RlbW86czNjcjN0IHBhc3M="), None);
    assert_eq!(parse_basic("Basic ???"), None);
}
