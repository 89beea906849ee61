//! What every blob store promises, held against each: in memory, in a folder, and, with
//! `ESL_TEST_S3_URL`, in a bucket of a server that speaks S3 (tests/blobs/run.sh starts one, and then runs what is
//! ignored otherwise).

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

use std::sync::Arc;

use bytes::Bytes;
use esl_core::{BlobKey, BlobStore, EventId, InstallationId, OrganizationId, PutId};
use futures_util::TryStreamExt;

fn key(organization: u8, event: u8) -> BlobKey {
    BlobKey {
        organization: OrganizationId::from_bytes([organization; 16]),
        event: EventId::from_bytes([event; 16]),
        put: PutId::from_bits(0xab),
    }
}

async fn read(store: &dyn BlobStore, key: BlobKey, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    let stream = store.read(key, range).await.unwrap()?;
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    Some(pieces.concat())
}

async fn list(store: &dyn BlobStore, after: Option<BlobKey>) -> Vec<BlobKey> {
    let pages: Vec<_> = store.list(after).try_collect().await.unwrap();
    assert!(pages.iter().all(|page| !page.is_empty()));
    pages.concat().iter().map(|blob| blob.key).collect()
}

async fn keeps_its_promises(store: Arc<dyn BlobStore>) {
    assert!(list(&*store, None).await.is_empty(), "the store is empty at first");
    let large: Vec<u8> = (0..=250).cycle().take(300_000).collect();
    let blob = key(2, 5);
    assert_eq!(read(&*store, blob, 0..1).await, None);
    store.put(blob, large.clone().into()).await.unwrap();
    assert_eq!(read(&*store, blob, 0..300_000).await.unwrap(), large);
    for (start, end) in [(0, 1), (299_999, 300_000), (65_535, 65_537), (100, 200_000)] {
        let read = read(&*store, blob, start as u64..end as u64).await.unwrap();
        assert_eq!(read, large[start..end], "{start}..{end}");
    }
    // What is put for the same event again is another blob.
    let again = BlobKey { put: PutId::from_bits(1 << 127), ..blob };
    store.put(again, Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(read(&*store, again, 0..5).await.unwrap(), b"other");
    assert_eq!(read(&*store, blob, 0..300_000).await.unwrap(), large);

    let mut all = vec![again, blob, key(1, 9), key(2, 4), key(3, 1), key(2, 6)];
    for key in &all {
        store.put(*key, Bytes::from_static(b"1")).await.unwrap();
    }
    all.sort_unstable();
    assert_eq!(list(&*store, None).await, all);
    for (index, key) in all.iter().enumerate() {
        assert_eq!(list(&*store, Some(*key)).await, all[index + 1..]);
    }

    let marks = (1..20).map(|number| store.mark(InstallationId::from_bytes([number; 16])));
    let owners = futures_util::future::join_all(marks).await;
    let owner = *owners[0].as_ref().unwrap();
    assert!(owners.into_iter().all(|one| one.unwrap() == owner), "it has one owner");
    assert_eq!(store.mark(InstallationId::from_bytes([99; 16])).await.unwrap(), owner);
    assert_eq!(list(&*store, None).await.len(), all.len());

    for key in &all {
        store.delete(*key).await.unwrap();
        store.delete(*key).await.unwrap();
        assert_eq!(read(&*store, *key, 0..1).await, None);
    }
    assert!(list(&*store, None).await.is_empty());
}

#[tokio::test]
async fn in_memory() {
    keeps_its_promises(esl_blob::open("memory:").unwrap()).await;
}

#[tokio::test]
async fn in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not there yet").join("blobs");
    let url = url::Url::from_file_path(&path).unwrap();
    keeps_its_promises(esl_blob::open(url.as_str()).unwrap()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_is_its_owners_and_holds_nothing_half_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = esl_blob::FolderBlobStore::open(folder.path().join("blobs")).unwrap();
    store.put(key(1, 1), Bytes::from_static(b"1")).await.unwrap();
    let organization = store.path().join(key(1, 1).organization.to_string());
    let file = store.path().join(key(1, 1).to_string());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(store.path()), mode(&organization), mode(&file)], [0o700, 0o700, 0o600]);
    // What a process that was killed has left is no blob.
    std::fs::write(organization.join("evt_half.part"), "x").unwrap();
    assert_eq!(list(&store, None).await.len(), 1);
}

#[tokio::test]
async fn a_folder_stays_its_owners_and_one_whose_owner_is_not_known_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let open = || esl_blob::FolderBlobStore::open(folder.path()).unwrap();
    let [one, other] = [1, 2].map(|number| InstallationId::from_bytes([number; 16]));
    assert_eq!(open().mark(one).await.unwrap(), one);
    assert_eq!(open().mark(other).await.unwrap(), one);
    let marker = folder.path().join("esl-installation");
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), format!("{one}\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    for wrong in ["", "ins_", &"x".repeat(1000)] {
        std::fs::write(&marker, wrong).unwrap();
        assert!(open().mark(one).await.is_err(), "{wrong}");
    }
    std::fs::remove_file(&marker).unwrap();
    assert_eq!(open().mark(other).await.unwrap(), other);
}

#[cfg(feature = "s3")]
#[tokio::test]
#[ignore = "needs a server that speaks S3: tests/blobs/run.sh"]
async fn in_s3() {
    let url = std::env::var("ESL_TEST_S3_URL").unwrap();
    let store = esl_blob::open(&url).unwrap();
    keeps_its_promises(Arc::clone(&store)).await;
    let now = esl_core::Clock::utc(&esl_core::SystemClock::new());
    let expires_at = now + std::time::Duration::from_secs(60);
    let blob = r#"{"text":"ä"}"#.repeat(10_000);
    store.put(key(1, 1), blob.clone().into()).await.unwrap();
    let link = store.presigned(key(1, 1), expires_at).await.unwrap().unwrap();
    assert!(link.starts_with("http") && link.contains("X-Amz-Signature="), "{link}");
    // What a receiver gets that is sent on there.
    let curl = |link: &str| {
        let arguments =
            ["--silent", "--max-time", "10", "--write-out", "\n%{http_code} %{content_type}"];
        let output = std::process::Command::new("curl").args(arguments).arg(link).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&link), format!("{blob}\n200 application/json"));
    store.delete(key(1, 1)).await.unwrap();
    assert!(curl(&link).contains("\n404 "), "{}", curl(&link));
    assert!(!format!("{store:?}").to_lowercase().contains("secret"));
}

#[test]
fn what_names_no_store_is_refused_with_what_is_expected() {
    for wrong in ["", "blobs", "ftp://a/b", "memory", "file://other-host/x"] {
        let error = esl_blob::open(wrong).unwrap_err().to_string();
        assert!(error.contains("file:///var/lib/esl/blobs"), "{wrong}: {error}");
    }
}
