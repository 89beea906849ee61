/// Writes one `#[test]` for each promise that a storage makes.
///
/// All that an adapter writes is a [`Harness`](crate::testing::Harness):
///
/// ```
/// use std::sync::{Arc, OnceLock};
/// use async_trait::async_trait;
/// use esl_core::{
///     Clock, MemoryStorage,
///     storage::Storage,
///     testing::{Engines, Harness, storage_suite},
/// };
///
/// struct InMemory(OnceLock<MemoryStorage>);
///
/// #[async_trait]
/// impl Harness for InMemory {
///     fn new() -> Self {
///         Self(OnceLock::new())
///     }
///
///     fn engines(&self) -> Engines {
///         Engines::Many
///     }
///
///     async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
///         Arc::new(self.0.get_or_init(|| MemoryStorage::with_clock(clock)).clone())
///     }
///
///     async fn reopen_after_kill(
///         &mut self,
///         killed: Arc<dyn Storage>,
///         clock: Arc<dyn Clock>,
///     ) -> Arc<dyn Storage> {
///         drop(killed);
///         self.open(clock).await
///     }
/// }
///
/// storage_suite!(InMemory); // seqs_have_no_gaps, settling_twice_changes_nothing, …
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! storage_suite {
    // The one list.
    (@list $what:ident $arguments:tt) => {
        $crate::storage_suite! { @$what $arguments
            commit:
                seqs_have_no_gaps,
                organizations_count_their_seqs_apart,
                concurrent_commits_have_no_gaps,
                a_refused_unit_leaves_nothing_behind_and_the_others_stand,
                a_unit_routed_with_another_version_is_refused,
                a_stale_route_is_refused_before_ids_are_looked_at,
                what_routing_must_know_raises_the_route_version_and_nothing_else,
                a_repeated_event_is_the_first_one,
                an_event_can_be_repeated_within_a_unit_and_within_a_group,
                an_event_id_with_other_content_is_refused,
                events_without_a_digest_are_the_same_under_one_id,
                an_event_id_belongs_to_its_organization,
                an_unknown_organization_is_refused,
                nothing_to_do_is_done,
                a_unit_publishes_and_settles_or_does_neither,
                an_event_goes_to_the_lanes_it_was_routed_to,
                a_dropped_commit_has_committed_all_or_nothing;
            idempotency:
                a_repetition_under_a_key_gets_the_first_answer,
                a_key_is_repeated_within_a_group,
                a_key_with_another_request_is_refused,
                a_key_is_known_for_24_hours,
                a_key_is_decided_before_everything_else,
                keys_of_organizations_are_apart,
                a_key_also_names_events_that_were_repeated;
            metering:
                a_limit_is_exact_and_its_thresholds_are_told_once,
                a_unit_that_comes_to_a_threshold_must_carry_its_notice,
                units_of_one_group_share_a_limit,
                an_array_is_refused_whole,
                what_comes_again_does_not_count,
                what_may_not_be_refused_counts_all_the_same,
                an_hour_begins_anew_and_never_again,
                a_clock_that_was_ahead_closes_nobody_out,
                usage_survives_a_kill,
                a_plan_is_kept_and_changing_it_makes_routes_stale,
                a_limit_of_subscriptions_is_exact;
            audit:
                every_change_is_in_the_trail_with_who_made_it,
                what_changed_nothing_is_not_in_the_trail,
                what_esl_switches_off_is_in_the_trail,
                the_trail_survives_a_kill_and_is_read_in_pages,
                the_trail_is_kept_as_long_as_events_also_of_a_deleted_organization;
            schedule:
                what_is_scheduled_waits_for_its_time_and_comes_once,
                what_is_scheduled_survives_a_kill,
                what_is_unscheduled_never_comes,
                all_or_none_are_scheduled_and_not_too_many;
            feed:
                a_feed_begins_with_what_comes_after_it_was_begun,
                an_organization_made_later_is_fed_from_its_beginning,
                a_feed_goes_on_behind_its_cursor_also_after_a_kill,
                a_cursor_moves_from_where_it_stands_and_in_a_running_epoch_only,
                feeds_of_two_names_are_apart,
                what_was_removed_is_passed_over_by_a_feed,
                no_organization_waits_for_the_feed_of_another,
                a_feeds_bytes_are_bounded,
                a_deleted_organization_is_fed_no_more_and_a_new_one_from_its_beginning;
            entities:
                an_entity_is_written_with_the_event_that_says_so,
                a_refused_unit_writes_neither_entities_nor_events,
                a_write_that_goes_by_what_is_not_so_any_more_is_refused,
                units_of_a_group_see_what_those_before_have_written,
                of_writers_that_have_read_the_same_one_succeeds,
                entities_belong_to_their_organization_and_kind,
                entities_are_listed_by_id_or_by_a_field_both_ways,
                an_index_holds_what_was_written_last,
                those_who_refer_to_one_are_counted_and_so_many_may,
                those_who_refer_to_one_are_found,
                what_is_due_is_found_by_storages_time,
                others_hear_of_what_is_to_be_done_at_a_time,
                entities_survive_sigkill,
                a_deleted_organization_has_no_entities,
                a_repetition_under_a_key_writes_no_entities,
                documents_and_indexes_hold_any_bytes,
                many_entities_are_written_in_one_unit;
            settle:
                a_delivered_delivery_is_over,
                a_retry_is_due_at_its_time,
                every_attempt_that_is_kept_can_be_read,
                every_kind_of_attempt_error_can_be_read,
                an_exhausted_delivery_is_over,
                settling_twice_changes_nothing,
                a_settlement_that_comes_once_more_settles_nothing_else,
                settling_what_was_never_there_is_no_error,
                settling_with_a_stale_epoch_changes_nothing,
                the_last_status_outlives_an_attempt_without_one,
                a_change_of_the_subscription_gives_its_receiver_another_chance,
                lane_state_is_given_to_whoever_takes_the_lane,
                a_switched_off_subscription_says_why,
                switching_off_what_is_paused_changes_nothing,
                what_was_sent_before_a_pause_is_settled_during_it,
                settling_for_a_deleted_subscription_changes_nothing,
                a_group_settles_and_publishes;
            claim:
                due_retries_come_first_and_then_the_untried_by_seq,
                a_claim_hands_out_what_there_is_room_for,
                a_claim_hands_out_the_untried_above_a_seq,
                retries_in_hand_are_not_handed_out_again,
                the_bytes_of_a_claim_are_bounded,
                a_claim_gives_the_event_as_it_was_sealed,
                claiming_changes_nothing,
                a_dropped_claim_loses_nothing,
                lanes_that_cannot_be_served_are_left_out_of_a_claim,
                a_lane_without_work_is_answered_empty,
                a_clock_that_is_set_back_delays_no_retry,
                a_retry_further_away_than_any_delay_is_due,
                pausing_holds_deliveries_and_resuming_hands_them_out_in_order,
                waiting_names_the_lanes_that_owe_something,
                waiting_also_names_lanes_that_are_free,
                an_event_from_the_future_is_due_at_once,
                a_taken_lane_comes_with_its_subscription_as_it_is;
            strict:
                in_order_a_retry_that_is_due_takes_its_turn_by_seq,
                in_order_a_retry_that_is_not_due_blocks_the_rest,
                in_order_what_there_is_no_room_for_is_left,
                in_order_a_reopened_delivery_is_the_head;
            fan_out:
                an_event_for_very_many_lanes_is_owed_to_them_in_slices,
                later_events_wait_for_a_fan_out_and_are_expanded_in_order,
                events_with_very_many_deliveries_together_are_each_fanned_out,
                a_slice_under_an_outdated_route_version_is_refused,
                an_event_for_one_subscription_alone_waits_for_nothing,
                what_an_event_is_not_for_is_remembered,
                fan_outs_are_read_organization_by_organization,
                a_fan_out_survives_a_kill,
                a_fan_out_that_begins_is_heard_by_others;
            epochs:
                an_epoch_lapses_without_renewal,
                a_renewed_epoch_lasts_from_its_renewal,
                a_lapsed_epoch_frees_its_lanes,
                resigning_frees_lanes_at_once,
                enlisting_again_voids_the_earlier_epoch,
                epochs_grow,
                an_unknown_worker_is_fenced,
                a_second_engine_is_refused_or_shares,
                of_two_takers_of_a_lane_one_wins,
                a_lapsed_engine_cannot_settle_what_another_took_over,
                a_clock_that_is_set_back_ends_no_epoch_and_prolongs_none,
                renewing_says_the_time_and_who_is_alive,
                a_released_lane_is_free,
                of_two_leaders_one_leads,
                a_settlement_under_way_is_over_before_its_lane_is_taken;
            changes:
                own_changes_are_not_heard,
                changes_to_subscriptions_are_heard_by_others,
                changes_to_clients_and_tokens_are_heard_by_others,
                intake_is_heard_whoever_added_it,
                a_delivery_that_others_opened_again_is_heard,
                a_dropped_wait_for_changes_loses_nothing,
                whoever_waits_for_changes_is_woken,
                what_one_handle_writes_the_others_read,
                a_route_version_raised_elsewhere_holds_for_the_next_commit,
                events_for_another_engines_lane_are_heard_by_it,
                an_engine_that_comes_or_goes_is_heard_by_the_others,
                seqs_have_no_gaps_over_several_engines;
            intake:
                intake_rows_come_in_their_order,
                an_intake_event_keeps_what_its_publisher_said,
                a_committed_unit_removes_its_intake_rows,
                a_repeated_intake_event_is_dropped,
                a_conflicting_intake_event_is_dropped,
                a_refused_unit_leaves_its_intake_rows,
                an_intake_row_is_removed_only_for_its_own_event,
                what_is_erased_from_the_intake_while_it_is_moved_is_not_stored,
                what_waits_for_an_organization_comes_when_it_is_made,
                what_waits_for_an_organization_that_is_not_there_goes_when_it_is_old,
                what_comes_to_the_intake_for_a_deleted_organization_goes_at_once,
                an_empty_intake_is_nothing;
            reopen:
                a_reopened_delivery_is_due_now_with_a_fresh_budget,
                a_reopened_deliverys_attempts_go_on,
                only_what_is_exhausted_can_be_reopened,
                what_does_not_exist_cannot_be_reopened,
                a_paused_subscriptions_delivery_is_reopened_into_being_held,
                a_delivery_of_an_erased_event_cannot_be_reopened;
            subscriptions:
                a_subscription_is_read_as_it_was_created,
                lanes_are_numbered_in_the_order_of_creation,
                subscriptions_are_listed_in_the_order_of_creation,
                an_organization_sees_nothing_of_anothers,
                an_update_changes_what_it_names,
                resuming_clears_the_reason_of_a_switch_off,
                a_deleted_subscription_is_gone,
                the_deliveries_of_a_deleted_subscription_stay_readable,
                a_subscription_needs_its_organization_and_an_id_of_its_own,
                routes_are_everything_that_routing_needs,
                a_storages_debug_shows_no_secret;
            options:
                options_are_read_as_they_were_written,
                an_update_changes_the_options_that_it_names,
                a_rotation_keeps_the_old_secret_for_its_grace,
                a_sweep_forgets_secrets_whose_grace_is_over;
            records:
                an_event_is_read_as_it_was_sealed,
                events_are_listed_newest_first,
                a_delivery_that_was_never_tried_is_pending,
                every_state_is_shown_as_it_is,
                deliveries_are_listed_newest_first_and_by_state,
                a_subscription_without_deliveries_has_an_empty_list,
                a_made_up_delivery_id_finds_nothing,
                health_counts_what_waits_and_since_when,
                a_working_storage_says_so;
            tenancy:
                organizations_are_listed_in_the_order_of_creation,
                an_organizations_id_and_name_are_its_own,
                clients_are_read_as_they_were_created,
                clients_are_listed_by_id_page_by_page,
                an_organization_has_so_many_clients_and_no_more,
                a_clients_id_is_its_own_in_all_organizations,
                a_token_is_found_by_its_digest_until_it_expires,
                deleting_a_client_removes_its_tokens,
                a_rotated_client_keeps_all_but_its_secret_and_its_tokens,
                a_secret_that_was_rotated_gets_no_tokens_any_more,
                tokens_are_stored_for_clients_that_exist_all_or_none;
            tokens:
                a_refresh_token_is_traded_once,
                a_refresh_token_that_comes_again_revokes_its_family,
                of_two_who_trade_one_token_one_wins_and_the_other_revokes,
                only_its_client_trades_a_token_and_only_before_it_expires,
                a_trade_gives_no_more_than_the_grant_and_the_client_have,
                a_revoked_access_token_goes_alone_and_a_refresh_token_with_its_family,
                what_was_used_up_or_revoked_is_so_after_a_kill,
                used_up_tokens_are_swept_when_they_expire;
            sweep:
                a_sweep_with_nothing_to_do_does_nothing,
                a_sweep_removes_what_is_over_slice_by_slice,
                a_swept_subscription_is_as_gone_as_before,
                a_sweep_gets_past_deleted_subscriptions_with_nothing_open;
            replays:
                a_replay_is_read_as_it_was_made,
                one_replay_to_a_subscription_runs_at_a_time,
                what_is_missing_is_opened_once_and_due_now,
                what_was_for_others_alone_is_not_missing,
                deliveries_are_opened_again_by_how_they_ended,
                a_replay_never_opens_an_erased_event,
                a_replay_is_bounded_by_seq_and_by_time,
                a_replay_does_not_overtake_a_fan_out,
                only_a_running_worker_advances_a_replay,
                a_replay_that_is_over_goes_when_it_is_old,
                a_replay_survives_a_kill;
            removal:
                what_is_old_and_settled_is_removed,
                nothing_is_removed_where_nothing_is_to_be,
                an_event_that_is_still_owed_stays,
                the_smallest_slices_leave_no_delivery_without_its_event,
                a_delivery_that_settles_while_its_event_goes_is_passed_over,
                an_event_from_far_in_the_future_holds_up_nothing,
                no_organization_waits_until_another_has_nothing_left,
                what_is_removed_is_counted_with_its_changes,
                attempts_go_with_their_delivery,
                a_delivery_of_a_removed_event_is_gone,
                the_id_of_a_removed_event_is_free,
                a_removal_survives_a_kill,
                two_keys_of_links_are_kept;
            erasure:
                an_erased_event_says_nothing_and_is_sent_no_more,
                an_event_in_the_intake_is_erased_there,
                what_is_yet_to_be_owed_of_an_erased_event_is_cancelled,
                others_hear_of_an_erased_event,
                the_organizations_of_an_event_are_found_by_its_id;
            deletion:
                a_deleted_organization_is_gone_at_once_and_its_rows_in_slices,
                nothing_of_a_deleted_organization_is_handed_out_or_opens_anything,
                an_organization_may_be_called_as_one_that_was_deleted,
                deleting_an_organization_leaves_the_others_where_they_are;
            blobs:
                the_blobs_of_removed_events_are_named,
                the_blobs_of_a_deleted_organization_are_named,
                only_the_put_that_was_committed_is_named,
                an_event_in_the_intake_names_its_blob,
                an_erased_event_names_its_blob_once_and_never_another,
                an_installation_is_the_same_for_ever;
            expiry:
                what_was_held_for_seven_days_expires,
                what_expires_is_not_sent_after_a_late_resume,
                a_pause_of_less_than_seven_days_expires_nothing,
                an_expired_delivery_can_be_reopened,
                an_expired_delivery_of_an_erased_event_stays_so,
                every_paused_subscription_has_its_turn,
                an_expiry_settles_nothing_twice,
                that_a_resumed_lane_is_ready_is_heard_by_others;
            durability:
                published_events_survive_a_kill,
                every_acknowledged_commit_survives_a_kill,
                settlements_survive_a_kill,
                a_killed_engine_owns_nothing,
                a_switch_off_survives_a_kill,
                an_idempotency_key_survives_a_kill,
                intake_rows_survive_a_kill,
                subscriptions_survive_a_kill,
                a_reopened_delivery_survives_a_kill,
                organizations_clients_and_tokens_survive_a_kill,
                a_sweep_survives_a_kill;
            extremes:
                a_unit_of_a_thousand_events_is_committed,
                an_event_goes_to_a_hundred_subscriptions,
                a_group_of_many_units_is_committed,
                a_body_of_a_mebibyte_is_kept,
                bodies_are_bytes,
                the_longest_names_are_kept,
                the_largest_numbers_are_kept;
        }
    };
    (@tests [$harness:ty] $($module:ident: $($case:ident),+ $(,)?;)+) => {
        $($(
            #[test]
            fn $case() {
                $crate::testing::suite::run::<$harness>($crate::testing::suite::cases::$case);
            }
        )+)+
    };
    (@cases [] $($module:ident: $($case:ident),+ $(,)?;)+) => {
        /// Every case under its name. A function that the list forgets is never used: a warning.
        pub mod cases {
            use super::{Case, World};
            $($(
                #[doc(hidden)]
                #[must_use]
                pub fn $case(world: World) -> Case {
                    Box::pin(super::$module::$case(world))
                }
            )+)+

            /// All of them, for who makes something else of them than a test each.
            #[doc(hidden)]
            pub const ALL: &[fn(World) -> Case] = &[$($($case),+),+];
        }
    };
    ($harness:ty) => {
        $crate::storage_suite! { @list tests [$harness] }
    };
}
