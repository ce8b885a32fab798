# The default policy of the agent, which a team can extend.
#
# The agent asks for `data.heal.decision` before every action, with the document of
# docs/policy.md as `input`. A rule of another file in this package adds to `deny` or
# `ask`; the strictest answer wins. A missing field in the document never allows an action.
package heal

import rego.v1

default decision := {
	"decision": "deny",
	"reasons": ["the document is not one that this policy understands"],
	"rules": ["incomplete"],
}

decision := {
	"decision": "deny",
	"reasons": sort({found.reason | some found in deny}),
	"rules": sort({found.rule | some found in deny}),
} if {
	complete
	count(deny) > 0
}

decision := object.union(
	{
		"decision": "needs_approval",
		"reasons": sort({found.reason | some found in ask}),
		"rules": sort({found.rule | some found in ask}),
	},
	agreement,
) if {
	complete
	count(deny) == 0
	count(ask) > 0
}

decision := {
	"decision": "allow",
	"reasons": [sprintf("%s is enabled, %s risk, within the budget", [input.action.name, input.action.risk])],
	"rules": ["nothing_against"],
} if {
	complete
	count(deny) == 0
	count(ask) == 0
}

# ---------------------------------------------------------------- required fields of the document

complete if {
	input.version == "2"
	time.parse_rfc3339_ns(input.time)
	is_string(input.environment)
	is_boolean(input.dry_run)
	is_boolean(input.incident.stale)
	is_string(input.action.name)
	input.action.risk in {"low", "medium", "high"}
	is_string(input.plan.hash)
	is_array(input.budgets.exceeded)
	is_number(input.budgets.incident.taken)
	is_number(input.budgets.incident.allowed)
	is_array(input.guardrails.enabled_actions)
	is_boolean(input.guardrails.allow_high_risk)
	is_array(input.guardrails.approval_for_risks)
	is_array(input.consent.refused_by)
	is_array(input.consent.given_by)
	known_or_null("target", input)
	known_or_null("rehearsal", input)
	known_or_null("disruption", input)
	known_or_null("kill_switch", input.brakes)
}

known_or_null(name, parent) if parent[name] == null

known_or_null(name, parent) if is_object(parent[name])

# ---------------------------------------------------------------- settings

deny contains {"rule": "enabled_actions", "reason": reason} if {
	not input.action.name in input.guardrails.enabled_actions
	reason := sprintf("%s is not among ENABLED_ACTIONS", [input.action.name])
}

deny contains {"rule": "high_risk", "reason": reason} if {
	input.action.risk == "high"
	input.guardrails.allow_high_risk != true
	reason := sprintf("%s is high risk: blocked unless ALLOW_HIGH_RISK_ACTIONS=true", [input.action.name])
}

deny contains {"rule": "incident_budget", "reason": reason} if {
	budget := input.budgets.incident
	budget.taken >= budget.allowed
	reason := sprintf(
		"the incident's budget is spent: %d of MAX_ACTIONS_PER_INCIDENT=%d taken",
		[budget.taken, budget.allowed],
	)
}

deny contains {"rule": rule, "reason": excess.reason} if {
	some excess in input.budgets.exceeded
	rule := sprintf("budget_%s", [excess.limit])
}

deny contains {"rule": "budget_unclear", "reason": "a budget is exceeded, but the document does not name it"} if {
	some excess in input.budgets.exceeded
	not named(excess)
}

named(excess) if {
	is_string(excess.limit)
	is_string(excess.reason)
}

deny contains {"rule": "disruption", "reason": reason} if {
	some reason in input.disruption.too_many
}

deny contains {"rule": "disruption", "reason": "the number of pods it makes unavailable is unknown"} if {
	input.disruption != null
	not is_array(object.get(input.disruption, "too_many", null))
}

# ---------------------------------------------------------------- opt-out

deny contains {"rule": "opted_out", "reason": reason} if {
	input.target != null
	some refusing in input.consent.refused_by
	reason := sprintf("the target opts out: %v", [refusing])
}

deny contains {"rule": "consent_unclear", "reason": "the opt-out of the target is unknown"} if {
	input.target != null
	object.get(input.consent, "unread", null) != null
}

deny contains {"rule": "opt_in", "reason": "REQUIRE_OPT_IN is set, and the target does not opt in"} if {
	input.target != null
	object.get(input.guardrails, "require_opt_in", false) != false
	count(input.consent.given_by) == 0
}

# ---------------------------------------------------------------- kill switch

# Only an explicit "off" allows an action. Fields that may be missing are read with object.get: within
# `not f(x.y)` OPA skips the whole rule if x.y is missing.
deny contains {"rule": "kill_switch", "reason": reason} if {
	brake := input.brakes.kill_switch
	brake != null
	object.get(brake, "engaged", null) != false
	reason := sprintf(
		"the kill switch was engaged by %s: %s",
		[object.get(brake, "by", "?"), object.get(brake, "reason", "?")],
	)
}

# ---------------------------------------------------------------- insufficient data

deny contains {"rule": "stale", "reason": reason} if {
	input.incident.stale
	not input.dry_run
	reason := "every signal of the incident was stale on arrival: only a dry run is allowed"
}

deny contains {"rule": "target_unknown", "reason": reason} if {
	input.target == null
	not input.dry_run
	input.action.name != "notify"
	problem := object.get(input, "target_problem", null)
	reason := sprintf("the target of the action is unknown: %s", [told(problem)])
}

told(problem) := problem if worded(problem)

told(problem) := "no cluster" if not worded(problem)

worded(problem) if {
	is_string(problem)
	problem != ""
}

deny contains {"rule": "rehearsal", "reason": reason} if {
	input.rehearsal != null
	object.get(input.rehearsal, "accepted", false) != true
	reason := sprintf("the API server would reject it: %s", [object.get(input.rehearsal, "message", "")])
}

# ---------------------------------------------------------------- approvals

ask contains {"rule": "approval_for_risks", "reason": reason} if {
	input.action.risk in input.guardrails.approval_for_risks
	reason := sprintf(
		"%s is %s risk, and APPROVAL_FOR_RISKS requires an approval",
		[input.action.name, input.action.risk],
	)
}

# ---------------------------------------------------------------- approval terms, set in data.json

# "approvals": {"prod": {"roles": ["sre"], "people": 2}}; elsewhere APPROVAL_ROLES and APPROVAL_PEOPLE apply.
default agreement := {}

agreement := {"approval": terms_by_environment[input.environment]}

terms_by_environment := object.get(data.heal_config, "approvals", {})

deny contains {"rule": "config", "reason": "heal_config.approvals is invalid"} if {
	not is_object(terms_by_environment)
}

deny contains {"rule": "config", "reason": "heal_config.approvals is invalid"} if {
	some terms in terms_by_environment
	not clear(terms)
}

clear(terms) if {
	is_object(terms)
	every field, _ in terms {
		field in {"roles", "people", "not_by"}
	}
	every field in ["roles", "not_by"] {
		is_array(object.get(terms, field, []))
		every name in object.get(terms, field, []) {
			is_string(name)
			name != ""
		}
	}
	object.get(terms, "people", 1) in {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
}

# ---------------------------------------------------------------- environments, set in data.json

# "environments": {"prod": "needs_approval", "legacy": "deny"}; the others are allowed.
deny contains {"rule": "environment", "reason": reason} if {
	set_for_environment == "deny"
	reason := sprintf("actions are denied in %s", [input.environment])
}

ask contains {"rule": "environment", "reason": reason} if {
	set_for_environment == "needs_approval"
	reason := sprintf("actions in %s require an approval", [input.environment])
}

deny contains {"rule": "config", "reason": "heal_config.environments has an unknown decision"} if {
	some word in data.heal_config.environments
	not word in {"allow", "needs_approval", "deny"}
}

set_for_environment := data.heal_config.environments[input.environment]

# ---------------------------------------------------------------- windows, set in data.json

# Hours in which actions are denied or require an approval:
# {"name": "weekend", "decision": "deny", "environments": ["prod"], "days": ["Saturday", "Sunday"],
#  "from": "00:00", "until": "24:00", "time_zone": "Europe/Berlin"}. Write a window across midnight as two.
deny contains {"rule": "window", "reason": reason} if {
	some window in data.heal_config.windows
	window.decision == "deny"
	within(window)
	reason := sprintf("actions are denied within the window %s", [window.name])
}

ask contains {"rule": "window", "reason": reason} if {
	some window in data.heal_config.windows
	window.decision == "needs_approval"
	within(window)
	reason := sprintf("actions within the window %s require an approval", [window.name])
}

deny contains {"rule": "config", "reason": "heal_config.windows has an invalid window"} if {
	some window in data.heal_config.windows
	not understood(window)
}

deny contains {"rule": "config", "reason": "heal_config lacks environments or windows"} if {
	not configured
}

configured if {
	is_object(data.heal_config.environments)
	is_array(data.heal_config.windows)
}

within(window) if {
	input.environment in window.environments
	now := time.parse_rfc3339_ns(input.time)
	time.weekday([now, window.time_zone]) in window.days
	clock := time.clock([now, window.time_zone])
	minute := (clock[0] * 60) + clock[1]
	minute >= minutes(window.from)
	minute < minutes(window.until)
}

understood(window) if {
	is_string(window.name)
	window.decision in {"deny", "needs_approval"}
	every environment in window.environments {
		is_string(environment)
	}
	every day in window.days {
		day in {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
	}
	minutes(window.from) < minutes(window.until)
	time.clock([0, window.time_zone])
}

minutes(text) := (to_number(trim_prefix(parts[0], "0")) * 60) + to_number(trim_prefix(parts[1], "0")) if {
	regex.match(`^([01][0-9]|2[0-4]):[0-5][0-9]$`, text)
	parts := split(text, ":")
}
