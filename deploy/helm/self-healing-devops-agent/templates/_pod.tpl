{{- /* The pod of one role: dict "root" $ "role" "api". */ -}}
{{- define "heal.pod" -}}
{{- $root := .root }}
metadata:
  labels:
    {{- include "heal.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    {{- /* Changed files take effect without a restart; one that appears needs it. */}}
    checksum/settings: {{ toJson (list (omit $root.Values "config" "services") (empty $root.Values.config) (empty $root.Values.services)) | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "heal.name" $root }}
  {{- if not $root.Values.ownCluster }}
  automountServiceAccountToken: false
  {{- end }}
  terminationGracePeriodSeconds: 30
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: agent
      image: {{ include "heal.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [run, --role, {{ .role }}]
      envFrom:
        - configMapRef: {name: {{ include "heal.name" $root }}}
        - secretRef: {name: {{ include "heal.adminSecret" $root | trim }}}
        {{- with $root.Values.database.existingSecret }}
        - secretRef: {name: {{ . }}}
        {{- end }}
        {{- with $root.Values.existingSettingsSecret }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      ports:
        - {name: http, containerPort: 8000}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 10
        timeoutSeconds: 8
      resources: {{- toYaml $root.Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if eq $root.Values.mode "single" }}
        - {name: data, mountPath: /data}
        {{- end }}
        {{- if or $root.Values.config $root.Values.services }}
        - {name: files, mountPath: /etc/heal, readOnly: true}
        {{- end }}
        {{- if $root.Values.secretFiles }}
        - {name: secrets, mountPath: /run/secrets/heal, readOnly: true}
        {{- end }}
        {{- if $root.Values.clusters }}
        - {name: clusters, mountPath: /run/secrets/clusters, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- if eq $root.Values.mode "single" }}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "heal.name" $root }}}
    {{- end }}
    {{- if or $root.Values.config $root.Values.services }}
    - name: files
      configMap: {name: {{ include "heal.name" $root }}-files}
    {{- end }}
    {{- with $root.Values.secretFiles }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range $name, $from := . }}
          - secret: {name: {{ $from.secret }}, items: [{key: {{ $from.key }}, path: {{ $name }}}]}
          {{- end }}
    {{- end }}
    {{- with $root.Values.clusters }}
    - name: clusters
      projected:
        defaultMode: 0440
        sources:
          {{- range $name, $cluster := . }}
          - secret: {name: {{ $cluster.kubeconfig.secret }}, items: [{key: {{ $cluster.kubeconfig.key }}, path: {{ $name }}}]}
          {{- end }}
    {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
