# The shipped policy, rule by rule: `heal policy test policies`, or `opa test policies`.
package heal_test

import data.heal
import rego.v1

document := {
	"version": "2",
	"time": "2026-02-20T17:02:00+00:00",
	"environment": "prod",
	"service": "payments-api",
	"dry_run": false,
	"incident": {"id": "inc_1", "stale": false},
	"plan": {"hash": "0f1e"},
	"action": {"name": "rollback", "risk": "high"},
	"target": {"uid": "u", "token": "u/3"},
	"target_problem": null,
	"rehearsal": {"accepted": true, "message": "ok"},
	"consent": {"refused_by": [], "given_by": [], "unread": null},
	"disruption": null,
	"budgets": {"incident": {"taken": 0, "allowed": 2}, "exceeded": []},
	"brakes": {"kill_switch": null},
	"guardrails": {
		"enabled_actions": ["notify", "restart", "rollback"],
		"allow_high_risk": true,
		"approval_for_risks": [],
	},
}

# The decision on a document, whatever data.json says of environments and windows.
decided(question) := decision if {
	decision := heal.decision with input as question with data.heal_config as config({}, [])
}

with_changes(changes) := json.patch(document, changes)

put(path, value) := with_changes([{"op": "replace", "path": path, "value": value}])

config(environments, windows) := {"environments": environments, "windows": windows}

weekday_afternoon := {
	"name": "friday afternoon",
	"decision": "deny",
	"environments": ["prod"],
	"days": ["Friday"],
	"from": "17:00",
	"until": "24:00",
	"time_zone": "Europe/Berlin",
}

test_nothing_against_it_is_allowed if {
	decided(document).decision == "allow"
}

test_nothing_at_all_is_denied if {
	decided({}).decision == "deny"
	decided({}).rules == ["incomplete"]
}

test_another_version_is_denied if {
	decided(put("/version", "1")).rules == ["incomplete"]
}

test_what_is_missing_is_denied if {
	every path in [
		"/time", "/environment", "/dry_run", "/incident", "/plan", "/action/name", "/action/risk", "/target",
		"/rehearsal", "/disruption", "/budgets", "/brakes", "/guardrails/allow_high_risk",
	] {
		decided(with_changes([{"op": "remove", "path": path}])).decision == "deny"
	}
}

test_an_action_that_is_not_enabled_is_denied if {
	decided(put("/action/name", "scale")).rules == ["enabled_actions"]
}

test_high_risk_is_denied_until_it_is_allowed if {
	decided(put("/guardrails/allow_high_risk", false)).rules == ["high_risk"]
}

test_low_risk_needs_no_permission if {
	changed := with_changes([
		{"op": "replace", "path": "/action", "value": {"name": "notify", "risk": "low"}},
		{"op": "replace", "path": "/guardrails/allow_high_risk", "value": false},
	])
	decided(changed).decision == "allow"
}

test_a_spent_budget_denies if {
	decided(put("/budgets/incident/taken", 2)).rules == ["incident_budget"]
}

test_the_last_of_a_budget_is_allowed if {
	decided(put("/budgets/incident/taken", 1)).decision == "allow"
}

test_an_exceeded_limit_denies_by_its_name if {
	changed := put("/budgets/exceeded", [{"limit": "cooldown", "reason": "it cools down"}])
	decided(changed).rules == ["budget_cooldown"]
	decided(changed).reasons == ["it cools down"]
}

test_a_limit_without_a_name_denies_too if {
	decided(put("/budgets/exceeded", [{}])).rules == ["budget_unclear"]
}

test_too_many_pods_deny if {
	changed := put("/disruption", {"too_many": ["3 of 3 replicas"]})
	decided(changed).reasons == ["3 of 3 replicas"]
	decided(changed).rules == ["disruption"]
}

test_pods_that_cannot_be_counted_deny if {
	decided(put("/disruption", {})).rules == ["disruption"]
}

test_the_kill_switch_denies if {
	on := {"engaged": true, "by": "carol", "reason": "migration"}
	decided(put("/brakes/kill_switch", on)).reasons == ["the kill switch was engaged by carol: migration"]
}

test_a_released_kill_switch_does_not if {
	off := {"engaged": false, "by": "carol", "reason": ""}
	decided(put("/brakes/kill_switch", off)).decision == "allow"
}

test_old_news_leads_to_no_real_action if {
	decided(put("/incident/stale", true)).rules == ["stale"]
}

test_old_news_may_be_rehearsed if {
	changed := with_changes([
		{"op": "replace", "path": "/incident/stale", "value": true},
		{"op": "replace", "path": "/dry_run", "value": true},
	])
	decided(changed).decision == "allow"
}

test_what_cannot_be_seen_is_not_acted_on if {
	changed := with_changes([
		{"op": "replace", "path": "/target", "value": null},
		{"op": "replace", "path": "/target_problem", "value": "forbidden"},
	])
	decided(changed).reasons == ["the target of the action is unknown: forbidden"]
}

test_what_the_api_server_refuses_is_denied if {
	changed := put("/rehearsal", {"accepted": false, "message": "no"})
	decided(changed).reasons == ["the API server would reject it: no"]
}

test_an_unclear_rehearsal_is_denied if {
	decided(put("/rehearsal", {})).rules == ["rehearsal"]
}

test_risks_ask_for_a_person if {
	changed := put("/guardrails/approval_for_risks", ["high"])
	decided(changed).decision == "needs_approval"
	decided(changed).rules == ["approval_for_risks"]
}

test_a_denial_is_stricter_than_a_question if {
	changed := with_changes([
		{"op": "replace", "path": "/guardrails/approval_for_risks", "value": ["high"]},
		{"op": "replace", "path": "/budgets/incident/taken", "value": 9},
	])
	decided(changed).decision == "deny"
}

test_every_reason_is_given if {
	changed := with_changes([
		{"op": "replace", "path": "/guardrails/allow_high_risk", "value": false},
		{"op": "replace", "path": "/guardrails/enabled_actions", "value": []},
	])
	decided(changed).rules == ["enabled_actions", "high_risk"]
}

test_an_environment_may_be_closed if {
	heal.decision.rules == ["environment"] with input as document with data.heal_config as config({"prod": "deny"}, [])
}

test_an_environment_may_ask if {
	found := heal.decision with input as document with data.heal_config as config({"prod": "needs_approval"}, [])
	found.decision == "needs_approval"
}

test_another_environment_is_not_meant if {
	found := heal.decision with input as document with data.heal_config as config({"dev": "deny"}, [])
	found.decision == "allow"
}

test_an_unknown_word_for_an_environment_denies_everywhere if {
	found := heal.decision with input as document with data.heal_config as config({"dev": "maybe"}, [])
	found.rules == ["config"]
}

test_a_window_denies_within_in_its_own_time_zone if {
	found := heal.decision with input as document with data.heal_config as config({}, [weekday_afternoon])
	found.rules == ["window"]
}

test_a_window_is_over_when_it_is_over if {
	before := put("/time", "2026-02-20T15:59:59+00:00")
	found := heal.decision with input as before with data.heal_config as config({}, [weekday_afternoon])
	found.decision == "allow"
}

test_a_window_has_days if {
	thursday := put("/time", "2026-02-19T17:02:00+00:00")
	found := heal.decision with input as thursday with data.heal_config as config({}, [weekday_afternoon])
	found.decision == "allow"
}

test_a_window_may_ask if {
	asking := object.union(weekday_afternoon, {"decision": "needs_approval"})
	found := heal.decision with input as document with data.heal_config as config({}, [asking])
	found.decision == "needs_approval"
}

test_a_window_that_is_not_understood_denies if {
	every change in [
		{"decision": "maybe"}, {"days": ["Someday"]}, {"from": "25:00"},
		{"until": "16:00"}, {"environments": [1]}, {"name": 7},
	] {
		wrong := object.union(weekday_afternoon, change)
		heal.decision.decision == "deny" with input as document with data.heal_config as config({}, [wrong])
		"config" in heal.decision.rules with input as document with data.heal_config as config({}, [wrong])
	}
}

test_a_lost_configuration_denies if {
	heal.decision.rules == ["config"] with input as document with data.heal_config as {}
}

# ---------------------------------------------------------------- who must agree

asking(approvals) := object.union(config({"prod": "needs_approval"}, []), {"approvals": approvals})

test_who_must_agree_is_told_with_the_question if {
	terms := {"roles": ["sre"], "people": 2}
	decision := heal.decision with input as document with data.heal_config as asking({"prod": terms})
	decision.decision == "needs_approval"
	decision.approval == terms
}

test_without_terms_the_settings_decide if {
	decision := heal.decision with input as document with data.heal_config as asking({"staging": {"people": 2}})
	decision.decision == "needs_approval"
	not decision.approval
}

test_what_is_allowed_asks_nobody if {
	only := object.union(config({}, []), {"approvals": {"prod": {"people": 2}}})
	decision := heal.decision with input as document with data.heal_config as only
	decision.decision == "allow"
	not decision.approval
}

test_terms_that_are_not_understood_deny if {
	every approvals in [
		["prod"], {"prod": ["sre"]}, {"prod": {"people": 0}}, {"prod": {"people": "two"}},
		{"prod": {"role": ["sre"]}}, {"prod": {"roles": "sre"}}, {"prod": {"roles": [""]}},
		{"prod": {"not_by": [1]}}, {"elsewhere": {"people": 11}},
	] {
		decision := heal.decision with input as document with data.heal_config as asking(approvals)
		decision.decision == "deny"
		"config" in decision.rules
	}
}

# ---------------------------------------------------------------- owners

test_whoever_keeps_the_agent_off_is_heard if {
	decided(put("/consent/refused_by", ["Namespace prod"])).rules == ["opted_out"]
}

test_a_namespace_that_cannot_be_read_denies if {
	decided(put("/consent/unread", "no right")).rules == ["consent_unclear"]
}

test_where_owners_must_let_it_in_they_must if {
	asked := with_changes([{"op": "add", "path": "/guardrails/require_opt_in", "value": true}])
	decided(asked).rules == ["opt_in"]
	given := json.patch(asked, [{"op": "replace", "path": "/consent/given_by", "value": ["Namespace prod"]}])
	decided(given).decision == "allow"
}

test_without_a_word_about_owners_nothing_is_allowed if {
	decided(with_changes([{"op": "remove", "path": "/consent"}])).rules == ["incomplete"]
}
