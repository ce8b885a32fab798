{{- define "heal.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "heal.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "heal.labels" -}}
{{ include "heal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "heal.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- define "heal.adminSecret" -}}
{{ .Values.adminToken.existingSecret | default (printf "%s-admin" (include "heal.name" .)) }}
{{- end }}

{{- /* Rights of the enabled actions, from files/rights.json, which is generated from the code. */ -}}
{{- define "heal.given" -}}
{{- $given := get .root.Values.settings .setting | toString }}
{{- if not $given }}{{ $given = get .root.Values.config (lower .setting) | toString }}{{ end }}
{{- if has (lower $given) (list "true" "1" "yes" "on" "t" "y") }}true{{ end }}
{{- end }}

{{- define "heal.rules" -}}
{{- $rights := .Files.Get "files/rights.json" | fromJson }}
{{- $verbs := dict }}
{{- $all := $rights.read }}
{{- range $action := .Values.enabledActions }}
  {{- if not (hasKey $rights.actions $action) }}{{ fail (printf "enabledActions: %s is not an action; use %s" $action (keys $rights.actions | sortAlpha | join ", ")) }}{{ end }}
  {{- $all = concat $all (get $rights.actions $action) }}
{{- end }}
{{- range $setting, $more := $rights.settings }}
  {{- if include "heal.given" (dict "root" $ "setting" $setting) }}
    {{- $all = concat $all $more }}
  {{- end }}
{{- end }}
{{- range $all }}
  {{- $tried := and (eq .resource "pods") (eq .verb "create") }}
  {{- if or (not $tried) $.Values.rbac.tryPods }}
    {{- $key := printf "%s/%s" .group .resource }}
    {{- $_ := set $verbs $key (append (get $verbs $key | default list) .verb | uniq) }}
  {{- end }}
{{- end }}
{{- range $key := keys $verbs | sortAlpha }}
- apiGroups: [{{ (splitList "/" $key | first) | quote }}]
  resources: [{{ $key | trimPrefix (printf "%s/" (splitList "/" $key | first)) | quote }}]
  verbs: [{{ get $verbs $key | sortAlpha | join ", " }}]
{{- end }}
{{- end }}
