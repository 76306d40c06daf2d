//! Every promise, over every backend.

use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use store::conformance::sample::{NOON, QUOTAS};
use store::conformance::{Backend, fencing, query as queries};
use store::sqlite::{Embedded, Options};

/// An embedded store that is empty, with the folder it lies in, if any.
fn embedded(folder: Option<&tempfile::TempDir>) -> (Embedded, Backend) {
    let clock = Arc::new(ManualClock::at(NOON));
    let folder = folder.map(|folder| folder.path().to_owned());
    let options = Options { folder, quotas: QUOTAS, ..Options::default() };
    let store = Embedded::open(options, Arc::clone(&clock) as Arc<dyn Clock>, &SeededEntropy::new(1)).unwrap();
    let backend = Backend { telemetry: Arc::new(store.telemetry().clone()), store: Arc::new(store.clone()), clock };
    (store, backend)
}

async fn on_disk(test: impl AsyncFnOnce(&Backend)) {
    let folder = tempfile::tempdir().unwrap();
    let (store, backend) = embedded(Some(&folder));
    test(&backend).await;
    drop(backend);
    store.close().await;
}

async fn in_memory(test: impl AsyncFnOnce(&Backend)) {
    let (store, backend) = embedded(None);
    test(&backend).await;
    drop(backend);
    store.close().await;
}

/// An empty store in a database of its own.
#[cfg(feature = "postgres-tests")]
async fn on_postgres(test: impl AsyncFnOnce(&Backend)) {
    on_database(&crate::postgres::database().await, test).await;
}

/// An empty store in the database at `address`.
#[cfg(feature = "postgres-tests")]
pub async fn on_database(address: &str, test: impl AsyncFnOnce(&Backend)) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOON));
    let options = Options { folder: Some(folder.path().to_owned()), quotas: QUOTAS, ..Options::default() };
    let (entropy, told) = (SeededEntropy::new(1), Arc::clone(&clock) as Arc<dyn Clock>);
    let store = Embedded::open_database(address, options, told, &entropy).await.unwrap();
    let backend = Backend { telemetry: Arc::new(store.telemetry().clone()), store: Arc::new(store.clone()), clock };
    test(&backend).await;
    drop(backend);
    store.close().await;
}

macro_rules! conformance {
    ($($noun:ident { $($promise:ident)* })*) => {
        $(mod $noun {
            $(mod $promise {
                #[tokio::test]
                async fn on_disk() {
                    crate::conformance::on_disk(store::conformance::$noun::$promise).await;
                }

                #[tokio::test]
                async fn in_memory() {
                    crate::conformance::in_memory(store::conformance::$noun::$promise).await;
                }

                #[cfg(feature = "postgres-tests")]
                #[tokio::test]
                async fn on_postgres() {
                    crate::conformance::on_postgres(store::conformance::$noun::$promise).await;
                }
            })*
        })*

        /// The promises that are run, to be compared with those that are written.
        const RUN: &[&str] = &[$($(stringify!($promise)),*),*];
    };
}

conformance! {
    cloud_to_device {
        a_message_comes_to_its_device_as_it_was_sent
        messages_are_leased_in_order_and_each_to_one
        a_message_is_for_an_identity_that_is_there
        as_many_messages_wait_as_may
        a_message_given_back_too_often_is_dead_lettered
        a_lock_that_runs_out_counts_as_given_back
        a_sweep_tells_whose_messages_wait_again
        time_runs_out_for_what_nobody_has
        a_connection_has_what_it_was_given_for_as_long_as_it_lives
        a_connection_that_may_settle_late_has_what_it_was_given_until_its_lock_runs_out
        a_connection_frees_what_it_has_and_lives_on
        a_late_release_leaves_a_later_connection_alone
        a_purged_queue_is_empty_and_the_senders_hear_of_it
        feedback_is_handed_out_until_it_is_settled_or_spent
        feedback_whose_lock_runs_out_is_free_and_its_readers_are_woken
        feedback_expires
        messages_and_feedback_go_with_their_identity
    }
    configuration {
        a_configuration_comes_back_as_it_was_written
        a_replaced_configuration_keeps_its_content_and_gets_a_fresh_etag
        a_hub_takes_as_many_configurations_as_it_may
        of_those_that_a_twin_fulfils_the_highest_applies
        a_twin_that_changes_is_judged_anew
        a_twin_that_changes_while_it_is_judged_is_judged_again
        a_device_that_comes_or_goes_is_counted
        a_configuration_made_again_before_its_deletion_was_noticed_is_counted_anew
        what_a_deleted_configuration_has_put_is_withdrawn
        modules_are_targets_of_their_own
        a_deployment_is_for_edge_devices_and_tells_which_modules_they_lack
        an_agents_twin_tells_of_its_devices_deployments
        hubs_are_judged_by_their_own_configurations
    }
    decision {
        a_refusal_is_found_at_once
        equal_refusals_within_a_minute_are_one_with_a_count
        admits_and_refusals_are_listed_together_newest_first
        text_from_outside_is_found_as_the_device_wrote_it
        a_flood_of_unknown_id_scopes_is_lost_and_counted_and_evicts_no_known_device
    }
    enrollment {
        an_entry_comes_back_as_it_was_created_keys_and_all
        names_are_unique_per_service_and_kind_without_regard_to_case
        a_replaced_entry_keeps_its_creation_time_and_gets_a_fresh_etag
        a_deleted_individual_enrollment_takes_its_record_along_and_a_group_does_not
        entries_are_listed_by_kind_in_pages_in_order_of_their_keys
        x509_groups_are_found_by_any_certificate_they_hold_or_name
        changes_of_symmetric_key_groups_are_counted_and_no_others
        symmetric_key_groups_are_listed_in_order_up_to_the_limit
        an_entry_needs_its_service_and_is_not_found_without
        a_service_takes_as_many_entries_of_a_kind_as_it_may
    }
    file {
        a_file_is_written_whole_and_read_in_parts
        a_file_of_no_device_is_written_by_who_may_write_all_of_them
        a_file_is_made_of_blocks_in_the_order_of_the_list
        a_file_of_many_blocks_that_is_replaced_leaves_none_of_them
        a_list_of_blocks_is_carried_out_whole_or_not_at_all
        a_file_that_is_there_is_left_alone_where_that_is_wished
        uploads_are_bounded_in_number_and_in_bytes
        an_upload_ends_once_and_takes_nothing_after_it
        time_runs_out_for_uploads_and_what_they_sent
        uploads_end_with_their_identity_and_files_stay
        files_are_listed_in_order_and_removed
        notifications_are_handed_out_until_they_are_settled_or_spent
        a_notification_whose_lock_runs_out_is_free_and_its_readers_are_woken
        notifications_expire
        a_deleted_hub_takes_its_files_along
        bytes_that_are_not_finished_leave_nothing
    }
    event {
        a_hub_tells_of_nothing_unless_it_is_asked_to
        each_source_tells_of_its_own_changes_alone
        a_twin_that_changes_is_told_of_with_what_it_came_to
        a_connection_is_told_of_when_it_begins_and_when_it_ends
        a_device_and_its_modules_are_told_of_as_they_come_and_go
        a_model_that_is_announced_is_a_change_of_the_digital_twin
        events_are_read_in_order_and_forgotten_up_to_a_place
    }
    identity {
        an_identity_comes_back_as_it_was_created_with_its_twin
        device_ids_are_unique_per_hub_and_case_matters
        a_module_needs_its_device_and_goes_with_it
        a_replaced_identity_keeps_generation_twin_and_what_the_hub_alone_knows
        rotated_keys_are_all_that_changes_and_who_is_connected_is_told
        an_edge_device_has_its_own_modules_and_a_scope_that_stays
        a_deleted_identity_is_gone_with_twin_and_session_and_comes_back_as_another
        devices_are_listed_in_pages_without_modules_and_counted
        who_may_no_longer_be_connected_is_told
        a_hub_takes_as_many_devices_as_it_may
        a_device_takes_as_many_modules_as_it_may_and_lists_them_all
    }
    transfer {
        an_import_or_export_is_carried_out_alone
        an_import_that_was_cancelled_carries_nothing_more_out
        lines_are_carried_out_once_whoever_tries_again
        a_line_that_fails_holds_up_no_other
        configurations_are_carried_out_behind_identities
        as_many_faults_are_told_as_may_be
        the_oldest_imports_and_exports_are_forgotten
    }
    job {
        a_job_comes_back_as_it_was_scheduled
        a_job_is_due_when_its_time_has_come
        a_hub_takes_as_many_jobs_as_it_may
        devices_are_enlisted_once_whoever_tries_again
        a_job_without_devices_is_done
        each_twin_of_a_list_is_changed_once
        a_change_that_is_refused_fails_at_its_device_alone
        what_a_device_answered_is_kept_as_it_was
        calls_whose_caller_has_ended_have_failed
        a_cancelled_job_does_nothing_more
        a_job_that_fails_fails_what_it_left_undone
        jobs_are_listed_by_type_and_state_in_pages
        what_became_of_jobs_is_read_in_pieces
        jobs_that_ended_long_ago_are_forgotten
    }
    query {
        twins_are_found_by_what_they_hold_at_their_hub_alone
        found_twins_come_whole_with_their_identities
        what_changes_is_found_by_what_it_is_then
        states_of_connections_are_found
        a_zero_within_a_text_is_a_character_like_others
        large_twins_come_in_bounded_pieces
        groups_are_counted_over_all_pieces
    }
    registration {
        the_same_device_joins_its_running_registration
        another_credential_or_version_of_the_entry_supersedes
        an_accepted_device_is_being_assigned
        operations_are_claimed_oldest_first_and_again_when_the_lease_has_run_out
        a_plan_that_exists_is_kept
        a_finished_assignment_leaves_identity_twin_and_record
        a_returning_device_is_refreshed_and_keeps_its_twin_when_it_stays
        a_missing_identity_is_made_again
        a_reset_on_the_same_hub_returns_the_twin_to_the_initial_one_and_tells_the_device
        a_device_that_moves_takes_its_twin_along_and_leaves_nothing
        a_device_that_is_renamed_takes_its_twin_along_and_leaves_nothing
        a_device_that_is_reset_starts_afresh_elsewhere
        an_entry_that_changed_since_ends_the_operation_as_failed
        an_assignment_to_a_hub_that_is_gone_writes_nothing
        a_refusal_is_noted_on_the_record_and_keeps_the_assignment
        a_group_is_remembered_and_lists_whom_it_admitted
        a_deleted_record_ends_its_operation_and_leaves_the_identity
        nobody_registers_at_a_service_that_is_gone
        ended_operations_are_forgotten_when_asked_and_running_ones_never
        two_hundred_requests_at_once_make_one_operation
    }
    resource {
        the_first_deployment_stays
        how_far_the_first_resources_are_made_is_remembered
        a_hub_comes_back_as_it_was_created
        names_of_hubs_are_unique_without_regard_to_case
        keys_of_hubs_are_never_given_twice
        addresses_follow_each_other_and_are_never_given_twice
        listed_addresses_are_given_until_none_is_left
        an_address_that_was_given_is_refused_also_after_deletion
        a_replaced_hub_keeps_what_never_changes
        a_deleted_hub_takes_its_contents_along
        a_service_comes_back_as_it_was_created_and_replaced
        a_deleted_service_takes_its_contents_along
        certificates_belong_to_their_owner_and_are_changed_under_preconditions
        a_certificate_needs_its_owner
        resource_groups_are_put_and_removed_without_regard_to_case
        etags_never_repeat
    }
    route {
        an_endpoint_begins_once_and_goes_on_where_it_was
        an_endpoint_that_is_forgotten_begins_anew
        a_message_that_is_given_up_is_kept_whole_and_passed_over
        no_more_messages_are_given_up_than_may_be_kept
        dead_letters_are_sent_again_when_asked_and_stay_if_refused
        dead_letters_are_purged_piece_by_piece_and_with_their_hub
    }
    session {
        each_claim_is_higher_than_the_one_before_and_ends_it
        nobody_claims_what_is_gone_or_of_another_generation
        a_session_is_resumed_until_a_clean_one_forgets_it
        a_model_is_announced_by_whoever_holds_the_identity_alone
        a_clean_session_remembers_nothing
        a_connection_that_knows_no_sessions_leaves_them_as_they_are
        a_model_stays_known_to_connections_that_announce_none_by_their_protocol
        the_latest_activity_wins
    }
    telemetry {
        a_message_comes_back_whole
        messages_that_are_appended_together_stand_together_and_in_order
        positions_rise_from_zero_in_each_partition
        readers_start_where_they_ask_to
        a_clock_that_is_put_back_does_not_put_messages_before_earlier_ones
        what_is_answered_wakes_readers_of_its_hub_and_no_others
        messages_sent_at_once_all_arrive_in_the_order_of_the_calls
        what_has_passed_its_time_is_hidden
        a_forgotten_hub_has_no_messages
        large_messages_come_in_bounded_pages
    }
    twin {
        documents_keep_order_numbers_and_depth
        a_report_moves_its_own_version_and_nothing_else
        a_change_of_desired_properties_is_written_with_the_row_that_tells_of_it
        a_change_that_is_refused_writes_nothing
        changes_of_large_properties_come_in_bounded_batches
        changes_that_were_told_are_forgotten_and_their_numbers_go_on
    }
}

#[test]
fn every_promise_that_is_written_is_run() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance");
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let promises = text.lines().filter_map(|line| line.strip_prefix("pub async fn "));
        for promise in promises.filter_map(|line| line.strip_suffix("(backend: &Backend) {")) {
            assert!(RUN.contains(&promise), "{promise} is not run");
        }
    }
}

#[tokio::test]
async fn every_operation_has_one_plan_and_one_end() {
    /// Random scripts, the same in every run.
    const SCRIPTS: usize = 150;
    let mut runner = TestRunner::deterministic();
    for _ in 0..SCRIPTS {
        let script = fencing::script().new_tree(&mut runner).unwrap().current();
        in_memory(async |backend: &Backend| {
            fencing::every_operation_has_one_plan_and_one_end(backend, &script).await;
        })
        .await;
    }
}

#[tokio::test]
async fn every_row_is_judged_as_the_evaluator_does() {
    /// Random twins and conditions, the same in every run.
    const ROUNDS: usize = 100;
    let mut runner = TestRunner::deterministic();
    for _ in 0..ROUNDS {
        let asked = queries::asked().new_tree(&mut runner).unwrap().current();
        in_memory(async |backend: &Backend| queries::every_row_is_judged_as_the_evaluator_does(backend, &asked).await)
            .await;
    }
}

#[cfg(feature = "postgres-tests")]
#[tokio::test]
async fn every_row_is_judged_as_the_evaluator_does_on_postgres() {
    /// Random twins and conditions, the same in every run.
    const ROUNDS: usize = 25;
    let mut runner = TestRunner::deterministic();
    for _ in 0..ROUNDS {
        let asked = queries::asked().new_tree(&mut runner).unwrap().current();
        on_postgres(async |backend: &Backend| {
            queries::every_row_is_judged_as_the_evaluator_does(backend, &asked).await;
        })
        .await;
    }
}

#[cfg(feature = "postgres-tests")]
#[tokio::test]
async fn every_operation_has_one_plan_and_one_end_on_postgres() {
    /// Random scripts, the same in every run.
    const SCRIPTS: usize = 25;
    let mut runner = TestRunner::deterministic();
    for _ in 0..SCRIPTS {
        let script = fencing::script().new_tree(&mut runner).unwrap().current();
        on_postgres(async |backend: &Backend| {
            fencing::every_operation_has_one_plan_and_one_end(backend, &script).await;
        })
        .await;
    }
}
