# The default policy of the agent, which a team can extend.
#
# The agent asks for `data.heal.decision` before every action, with the document of
# docs/policy.md as `input`. A rule of another file in this package adds to `deny` or
# `ask`; the strictest answer wins. A missing field in the document never allows an action.
#
# The guardrails are not repeated here: enabled actions, risks, budgets, disruption, opt-out,
# kill switch, stale signals, unknown targets, the rehearsal and APPROVAL_FOR_RISKS are decided
# in the agent, whatever a policy answers (docs/policy.md). This file holds what a team decides.
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
	"reasons": ["no rule of the policy denies it or requires an approval"],
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
