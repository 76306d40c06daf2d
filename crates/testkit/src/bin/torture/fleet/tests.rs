use super::*;
use crate::verify::LOST;

#[test]
fn a_server_that_forgets_is_caught_by_what_is_missing_alone() {
    let binary = Binary { muster: PathBuf::new(), unsynced: false, forgetful: true };
    let wish = Wish { binary, work: PathBuf::new(), devices: 1, messages: 1, kills: 0, seed: 0 };
    let cases: [(&[String], bool); 3] = [
        (&[], false),
        (&["\"a 0\" was sent once and is there 2 times".to_owned()], false),
        (&["a is in the partitions 0 and 1".to_owned(), format!("\"a 0\" {LOST}")], true),
    ];
    for (problems, is_caught) in cases {
        let acknowledged = BTreeMap::from([("messages over MQTT", 1)]);
        let findings = Findings { acknowledged, done_unheard: 0, problems: problems.to_vec() };
        assert_eq!(judge(&wish, &findings, 0).is_ok(), is_caught, "{problems:?}");
    }
}
