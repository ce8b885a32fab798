{{- /* The pod of one role: dict "root" $ "role" "api". */ -}}
{{- define "heal.pod" -}}
{{- $root := .root }}
metadata:
  labels:
    {{- include "heal.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    checksum/settings: {{ toJson $root.Values | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "heal.name" $root }}
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
  volumes:
    - name: tmp
      emptyDir: {}
    {{- if eq $root.Values.mode "single" }}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "heal.name" $root }}}
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
