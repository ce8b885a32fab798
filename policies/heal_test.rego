# Tests of the shipped policy, one for each rule: `heal policy test policies`, or `opa test policies`.
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

# The decision on the ordinary document with another configuration.
configured(configuration) := decision if {
	decision := heal.decision with input as document with data.heal_config as configuration
}

with_changes(changes) := json.patch(document, changes)

put(path, value) := with_changes([{"op": "replace", "path": path, "value": value}])

config(environments, windows) := {"environments": environments, "windows": windows}

friday_evening := {
	"name": "friday evening",
	"decision": "deny",
	"environments": ["prod"],
	"days": ["Friday"],
	"from": "17:00",
	"until": "24:00",
	"time_zone": "Europe/Berlin",
}

# ---------------------------------------------------------------- the document

test_complete_document_without_any_rule_is_allowed if {
	decided(document).decision == "allow"
	decided(document).rules == ["nothing_against"]
	count(decided(document).reasons) == 1
}

test_empty_document_is_denied_as_incomplete if {
	decided({}).decision == "deny"
	decided({}).rules == ["incomplete"]
}

test_document_of_another_version_is_denied_as_incomplete if {
	decided(put("/version", "1")).rules == ["incomplete"]
}

test_document_without_a_required_field_is_denied if {
	every path in [
		"/time", "/environment", "/dry_run", "/incident", "/plan", "/action/name", "/action/risk", "/target",
		"/rehearsal", "/disruption", "/consent", "/budgets", "/brakes", "/guardrails/allow_high_risk",
	] {
		decided(with_changes([{"op": "remove", "path": path}])).rules == ["incomplete"]
	}
}

test_document_with_a_field_of_another_type_is_denied if {
	every change in [
		["/dry_run", "false"], ["/action/risk", "unknown"], ["/target", "a Deployment"],
		["/budgets/incident/taken", "0"], ["/guardrails/enabled_actions", "rollback"],
	] {
		decided(put(change[0], change[1])).rules == ["incomplete"]
	}
}

# ---------------------------------------------------------------- environments

test_environment_set_to_deny_is_denied if {
	configured(config({"prod": "deny"}, [])).decision == "deny"
	configured(config({"prod": "deny"}, [])).rules == ["environment"]
}

test_environment_set_to_needs_approval_requires_an_approval if {
	configured(config({"prod": "needs_approval"}, [])).decision == "needs_approval"
	configured(config({"prod": "needs_approval"}, [])).rules == ["environment"]
}

test_environment_set_to_allow_is_allowed if {
	configured(config({"prod": "allow"}, [])).decision == "allow"
}

test_setting_of_another_environment_does_not_apply if {
	configured(config({"dev": "deny"}, [])).decision == "allow"
}

test_unknown_decision_for_any_environment_is_denied if {
	configured(config({"dev": "maybe"}, [])).rules == ["config"]
}

# ---------------------------------------------------------------- windows

test_window_denies_by_the_clock_of_its_time_zone if {
	configured(config({}, [friday_evening])).rules == ["window"]
}

test_window_does_not_apply_one_second_before_its_start if {
	before := put("/time", "2026-02-20T15:59:59+00:00")
	found := heal.decision with input as before with data.heal_config as config({}, [friday_evening])
	found.decision == "allow"
}

test_window_does_not_apply_on_another_day if {
	thursday := put("/time", "2026-02-19T17:02:00+00:00")
	found := heal.decision with input as thursday with data.heal_config as config({}, [friday_evening])
	found.decision == "allow"
}

test_window_does_not_apply_in_another_environment if {
	elsewhere := put("/environment", "staging")
	found := heal.decision with input as elsewhere with data.heal_config as config({}, [friday_evening])
	found.decision == "allow"
}

test_window_set_to_needs_approval_requires_an_approval if {
	approving := object.union(friday_evening, {"decision": "needs_approval"})
	configured(config({}, [approving])).decision == "needs_approval"
}

test_invalid_window_is_denied if {
	every change in [
		{"decision": "maybe"}, {"days": ["Someday"]}, {"from": "25:00"},
		{"until": "16:00"}, {"environments": [1]}, {"name": 7},
	] {
		wrong := object.union(friday_evening, change)
		configured(config({}, [wrong])).decision == "deny"
		"config" in configured(config({}, [wrong])).rules
	}
}

# ---------------------------------------------------------------- several rules

test_denial_is_stricter_than_a_required_approval if {
	both := config({"prod": "needs_approval"}, [friday_evening])
	configured(both).decision == "deny"
	configured(both).rules == ["window"]
}

test_every_denial_is_listed_with_its_reason if {
	both := config({"prod": "deny"}, [friday_evening])
	configured(both).rules == ["environment", "window"]
	configured(both).reasons == [
		"actions are denied in prod",
		"actions are denied within the window friday evening",
	]
}

test_missing_configuration_is_denied if {
	configured({}).rules == ["config"]
}

# ---------------------------------------------------------------- guardrails, which the agent decides

test_settings_of_the_guardrails_are_not_decided_here if {
	limited := with_changes([
		{"op": "replace", "path": "/guardrails/enabled_actions", "value": []},
		{"op": "replace", "path": "/guardrails/allow_high_risk", "value": false},
		{"op": "replace", "path": "/guardrails/approval_for_risks", "value": ["high"]},
		{"op": "replace", "path": "/budgets/incident/taken", "value": 9},
	])
	decided(limited).decision == "allow"
}

# ---------------------------------------------------------------- approval terms

approving(approvals) := object.union(config({"prod": "needs_approval"}, []), {"approvals": approvals})

test_approval_terms_of_the_environment_are_part_of_the_decision if {
	terms := {"roles": ["sre"], "people": 2}
	configured(approving({"prod": terms})).decision == "needs_approval"
	configured(approving({"prod": terms})).approval == terms
}

test_decision_has_no_approval_terms_if_none_are_set_for_the_environment if {
	found := configured(approving({"staging": {"people": 2}}))
	found.decision == "needs_approval"
	not found.approval
}

test_allowed_decision_has_no_approval_terms if {
	found := configured(object.union(config({}, []), {"approvals": {"prod": {"people": 2}}}))
	found.decision == "allow"
	not found.approval
}

test_invalid_approval_terms_are_denied if {
	every approvals in [
		["prod"], {"prod": ["sre"]}, {"prod": {"people": 0}}, {"prod": {"people": "two"}},
		{"prod": {"role": ["sre"]}}, {"prod": {"roles": "sre"}}, {"prod": {"roles": [""]}},
		{"prod": {"not_by": [1]}}, {"elsewhere": {"people": 11}},
	] {
		configured(approving(approvals)).decision == "deny"
		"config" in configured(approving(approvals)).rules
	}
}
