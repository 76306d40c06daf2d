//! Tokens of files: what one is worth, for which file, and until when.

use std::time::Duration;

use domain::file::{Access, FileName, FileToken, Permissions, StorageToken};
use domain::ids::{Precondition, UploadId};
use domain::operation::file::{Answer, Ask};
use domain::operation::resource::{Ask as ResourceAsk, FileDraft, HubDraft};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, keys};
use store::ports::IdentityStore as _;

use crate::ground::Ground;

const CONTAINER: &str = "uploads";
const TTL_S: u64 = 600;
const TTL: Duration = Duration::from_secs(TTL_S);

/// A file that a device was given a place for.
struct Place {
    ground: Ground,
    file: FileName,
    token: FileToken,
}

impl Place {
    async fn begin() -> Self {
        let ground = Ground::new().await;
        let hub = ground.hub();
        let files = FileDraft { container: Some(CONTAINER.to_owned()), upload_ttl: Some(TTL), ..FileDraft::default() };
        let draft = Box::new(HubDraft { files, ..HubDraft::default() });
        let (place, name) = (ground.place(), hub.name.clone());
        let ask = ResourceAsk::PutHub { place, name, draft, precondition: Precondition::None };
        ground.service.perform(&ground.operator(), Operation::Resource(ask)).await.unwrap();
        ground.store.create_identity(hub.key, identity(device("dev"), 1), None, NOON).await.unwrap().done();
        let caller = ground.device_at_hub(&device("dev"), &keys(1).primary);
        let ask = Ask::Begin { name: device("dev"), file: "a".to_owned() };
        let begun = ground.service.perform(&caller, Operation::File(ask)).await.unwrap();
        let Reply::File(Answer::Begun { file, token, .. }) = begun else { panic!("{begun:?}") };
        Self { ground, file, token }
    }

    async fn open(&self, token: &FileToken, file: &FileName, access: Access) -> Result<(), ErrorKind> {
        let caller = self.ground.device_at_hub(&device("nobody"), &keys(9).primary);
        let token = StorageToken::File(token.clone());
        let ask = Ask::Open { token, container: CONTAINER.to_owned(), file: file.clone(), access };
        let opened = self.ground.service.perform(&caller, Operation::File(ask)).await;
        opened.map(drop).map_err(|failure: Failure| failure.kind)
    }
}

#[tokio::test]
async fn a_token_is_worth_what_was_signed_and_nothing_beside_it() {
    let place = Place::begin().await;
    let (token, file) = (&place.token, &place.file);
    for (access, expected) in
        [(Access::Read, Ok(())), (Access::Write, Ok(())), (Access::Delete, Err(ErrorKind::Forbidden))]
    {
        assert_eq!(place.open(token, file, access).await, expected, "{access:?}");
    }
    let other = FileName::parse("dev/b").unwrap();
    assert_eq!(place.open(token, &other, Access::Read).await, Err(ErrorKind::Unauthorized));

    let mut signature = token.signature;
    signature[31] ^= 1;
    let cases = [
        ("another signature", FileToken { signature, ..token.clone() }),
        ("another upload", FileToken { upload: UploadId::from_bits(1), ..token.clone() }),
        ("a later end", FileToken { expires_at: token.expires_at.plus(TTL), ..token.clone() }),
        ("other rights", FileToken { permissions: Permissions { read: true, write: false }, ..token.clone() }),
    ];
    for (name, token) in cases {
        assert_eq!(place.open(&token, file, Access::Read).await, Err(ErrorKind::Unauthorized), "{name}");
    }
}

#[tokio::test]
async fn a_token_ends_when_it_says() {
    let place = Place::begin().await;
    place.ground.clock.advance(Duration::from_secs(TTL_S - 1));
    assert_eq!(place.open(&place.token, &place.file, Access::Write).await, Ok(()));
    place.ground.clock.advance(Duration::from_secs(7));
    for access in [Access::Read, Access::Write] {
        assert_eq!(place.open(&place.token, &place.file, access).await, Err(ErrorKind::Unauthorized), "{access:?}");
    }
}
