{{/* Name of the chart. */}}
{{- define "webhook-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Full name of the release's objects. */}}
{{- define "webhook-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "webhook-operator.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "webhook-operator.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the pods: never changes in the life of a release. */}}
{{- define "webhook-operator.selector" -}}
app.kubernetes.io/name: {{ include "webhook-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of all objects. */}}
{{- define "webhook-operator.labels" -}}
{{- include "webhook-operator.moreLabels" (list . "extraLabels" .Values.extraLabels) }}
{{- end }}

{{/*
Labels of all objects and more, as (list CONTEXT NAME MORE); NAME is the value that MORE is. Each key stands once; what
selects the pods, and what tells Helm what is its own, cannot be set by a value.
*/}}
{{- define "webhook-operator.moreLabels" -}}
{{- $context := index . 0 }}
{{- $labels := include "webhook-operator.selector" $context | fromYaml }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $labels "app.kubernetes.io/version" $context.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $context.Release.Service }}
{{- $extra := dict "extraLabels" $context.Values.extraLabels (index . 1) (index . 2) }}
{{- range $value, $more := $extra }}
{{- range $key, $_ := $more }}
{{- if hasKey $labels $key }}
{{- fail (printf "%s: the label %s is the chart's own and cannot be set" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml (merge $labels (index . 2) $context.Values.extraLabels) }}
{{- end }}

{{/* Name of the service account. */}}
{{- define "webhook-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "webhook-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The image, by digest if there is one. */}}
{{- define "webhook-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Rules that hold wherever Webhooks are served: cluster-wide, or in each served namespace. */}}
{{- define "webhook-operator.rules" -}}
# The spec is never written: finalizer, and the annotations with the id and the mark of a create.
- apiGroups: [webhook-operator.dev]
  resources: [webhooks, webhookproviders]
  verbs: [get, list, watch, patch]
- apiGroups: [webhook-operator.dev]
  resources: [webhooks/status, webhookproviders/status]
  verbs: [patch]
# Credentials are read; secrets made by an upstream or by the operator are written; credentials in use get a finalizer.
# Only metadata is watched, but Kubernetes cannot grant that: this is a right to read these Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
# Trust roots (caBundleRef).
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
