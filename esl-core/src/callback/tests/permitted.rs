//! URLs that anybody may subscribe with.

/// Each with what is kept of it, and why.
pub(super) const PERMITTED: &[(&str, &str, &str)] = &[
    // Beside the special networks of IPv4.
    ("https://1.0.0.0/", "https://1.0.0.0/", "after this network"),
    ("https://9.255.255.255/", "https://9.255.255.255/", "before private"),
    ("https://11.0.0.0/", "https://11.0.0.0/", "after private"),
    ("https://100.63.255.255/", "https://100.63.255.255/", "before carrier-grade NAT"),
    ("https://100.128.0.0/", "https://100.128.0.0/", "after carrier-grade NAT"),
    ("https://126.255.255.255/", "https://126.255.255.255/", "before loopback"),
    ("https://128.0.0.0/", "https://128.0.0.0/", "after loopback"),
    ("https://168.63.129.15/", "https://168.63.129.15/", "before Azure's platform"),
    ("https://168.63.129.17/", "https://168.63.129.17/", "after Azure's platform"),
    ("https://169.253.255.255/", "https://169.253.255.255/", "before link-local"),
    ("https://169.255.0.0/", "https://169.255.0.0/", "after link-local"),
    ("https://172.15.255.255/", "https://172.15.255.255/", "before private"),
    ("https://172.32.0.0/", "https://172.32.0.0/", "after private"),
    ("https://191.255.255.255/", "https://191.255.255.255/", "before protocol assignments"),
    ("https://192.0.1.0/", "https://192.0.1.0/", "after protocol assignments"),
    ("https://192.0.1.255/", "https://192.0.1.255/", "before documentation 1"),
    ("https://192.0.3.0/", "https://192.0.3.0/", "after documentation 1"),
    ("https://192.31.196.1/", "https://192.31.196.1/", "AS112, special but public"),
    ("https://192.88.98.255/", "https://192.88.98.255/", "before 6to4 relays"),
    ("https://192.88.100.0/", "https://192.88.100.0/", "after 6to4 relays"),
    ("https://192.167.255.255/", "https://192.167.255.255/", "before private"),
    ("https://192.169.0.0/", "https://192.169.0.0/", "after private"),
    ("https://198.17.255.255/", "https://198.17.255.255/", "before benchmarking"),
    ("https://198.20.0.0/", "https://198.20.0.0/", "after benchmarking"),
    ("https://198.51.99.255/", "https://198.51.99.255/", "before documentation 2"),
    ("https://198.51.101.0/", "https://198.51.101.0/", "after documentation 2"),
    ("https://203.0.112.255/", "https://203.0.112.255/", "before documentation 3"),
    ("https://203.0.114.0/", "https://203.0.114.0/", "after documentation 3"),
    ("https://223.255.255.255/", "https://223.255.255.255/", "before multicast"),
    // Beside the special networks of IPv6.
    ("https://[2000::]/", "https://[2000::]/", "first of what is public"),
    ("https://[2001:200::]/", "https://[2001:200::]/", "after protocol assignments"),
    ("https://[2001:db7:ffff::1]/", "https://[2001:db7:ffff::1]/", "before documentation"),
    ("https://[2001:db9::]/", "https://[2001:db9::]/", "after documentation"),
    ("https://[2001:ffff::1]/", "https://[2001:ffff::1]/", "before 6to4"),
    ("https://[2003::]/", "https://[2003::]/", "after 6to4"),
    ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/", "public"),
    ("https://[2A00:1450:0::200E]/", "https://[2a00:1450::200e]/", "upper case"),
    ("https://[3ffe:ffff::1]/", "https://[3ffe:ffff::1]/", "before documentation"),
    ("https://[3fff:1000::]/", "https://[3fff:1000::]/", "after documentation"),
    // Public IPv4 within IPv6.
    ("https://[::ffff:8.8.8.8]/", "https://[::ffff:808:808]/", "mapped"),
    ("https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b::808:808]/", "NAT64"),
    ("https://[64:ff9b::b00:0]/", "https://[64:ff9b::b00:0]/", "NAT64, after private"),
    ("https://[2606:4700::5efe:8.8.8.8]/", "https://[2606:4700::5efe:808:808]/", "ISATAP"),
    ("https://[2606:4700::5eff:a00:1]/", "https://[2606:4700::5eff:a00:1]/", "beside ISATAP"),
    // Spellings of public IPv4.
    ("https://134744072/", "https://8.8.8.8/", "decimal"),
    ("https://0x8080808/", "https://8.8.8.8/", "hex"),
    ("https://010.010.010.010/", "https://8.8.8.8/", "octal, and not 10.10.10.10"),
    ("https://8.526344/", "https://8.8.8.8/", "two parts"),
    ("https://8.8.8.8./", "https://8.8.8.8/", "dot at the end, which an address has not"),
    ("https://８.８.８.８/", "https://8.8.8.8/", "full width"),
    // Names.
    ("https://your-app.com", "https://your-app.com/", "no path"),
    ("HTTPS://Your-App.COM:443/A/../B", "https://your-app.com/B", "upper case, usual port"),
    ("https://your%2Dapp.com/", "https://your-app.com/", "encoded"),
    ("https://under_score.your-app.com/", "https://under_score.your-app.com/", "underscore"),
    ("https://notlocalhost.com/", "https://notlocalhost.com/", "ends otherwise"),
    ("https://localhost.your-app.com/", "https://localhost.your-app.com/", "public domain"),
    ("https://your-app.mylocal.io/", "https://your-app.mylocal.io/", "ends otherwise"),
    ("https://internal.your-app.com/", "https://internal.your-app.com/", "public domain"),
    ("https://thehome.arpa/", "https://thehome.arpa/", "not home.arpa"),
    ("https://127.0.0.1.nip.io/", "https://127.0.0.1.nip.io/", "what it leads to is seen later"),
    ("https://1.1.1.1x/", "https://1.1.1.1x/", "no address"),
    ("https://0x7f.com/", "https://0x7f.com/", "no address"),
    ("https://bücher.example/ö", "https://xn--bcher-kva.example/%C3%B6", "Punycode"),
    ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", "Punycode as it is"),
    (LABEL_OF_63, LABEL_OF_63, "label of 63 characters"),
    (NAME_OF_253, NAME_OF_253, "name of 253 characters"),
    // What is around the host.
    ("https://your-app.com:8443/?a=b", "https://your-app.com:8443/?a=b", "port and query"),
    ("https://your-app.com:1/", "https://your-app.com:1/", "first port"),
    ("https://your-app.com:65535/", "https://your-app.com:65535/", "last port"),
    ("https://your-app.com:/", "https://your-app.com/", "empty port"),
    ("https://your-app.com:000443/", "https://your-app.com/", "zeros ahead of a port"),
    ("https://your-app.com/hook#part", "https://your-app.com/hook", "fragment, never sent"),
    ("https://your-app.com#@127.0.0.1/", "https://your-app.com/", "an address in the fragment"),
    ("https://your-app.com/@127.0.0.1/", "https://your-app.com/@127.0.0.1/", "one in the path"),
    ("https://your-app.com?@127.0.0.1", "https://your-app.com/?@127.0.0.1", "one in the query"),
    (r"https://your-app.com\@127.0.0.1", "https://your-app.com/@127.0.0.1", "backslash is slash"),
    ("https:your-app.com", "https://your-app.com/", "no slashes"),
    ("https://@your-app.com/", "https://your-app.com/", "empty user"),
    ("https://:@your-app.com/", "https://your-app.com/", "empty user and password"),
    ("https://your-app.com/%0a", "https://your-app.com/%0a", "line end in the path, encoded"),
];

const LABEL_OF_63: &str =
    "https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example/";

const NAME_OF_253: &str = "https://\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.\
    bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.\
    ccccccccccccccccccccccccccccccccccccccccccccccccc.\
    ddddddddddddddddddddddddddddddddddddddddddddddddd.\
    eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.example/";
