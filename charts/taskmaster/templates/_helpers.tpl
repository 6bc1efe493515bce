{{- define "taskmaster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for the suffixes that the templates append. */}}
{{- define "taskmaster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "taskmaster.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "taskmaster.selectorLabels" -}}
app.kubernetes.io/name: {{ include "taskmaster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: coordinator
{{- end }}

{{/* Labels of every object but the selector's component. */}}
{{- define "taskmaster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "taskmaster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: taskmaster
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (dict "image" .Values.image "root" .) */}}
{{- define "taskmaster.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end }}

{{- define "taskmaster.serviceAccountName" -}}
{{- default (printf "%s-operator" (include "taskmaster.fullname" .)) .Values.serviceAccount.name }}
{{- end }}

{{- define "taskmaster.leaseName" -}}
{{ include "taskmaster.fullname" . }}-coordinator
{{- end }}

{{/* Where pools go that name no namespace. */}}
{{- define "taskmaster.poolNamespace" -}}
{{- if and .Values.watchNamespaces (not (has .Release.Namespace .Values.watchNamespaces)) -}}
{{- first .Values.watchNamespaces }}
{{- else -}}
{{- .Release.Namespace }}
{{- end -}}
{{- end }}

{{/* Where something can run: the namespace of the first pool. */}}
{{- define "taskmaster.firstPoolNamespace" -}}
{{- $namespace := include "taskmaster.poolNamespace" . -}}
{{- $found := list -}}
{{- range $name, $pool := .Values.workerPools -}}
{{- if $pool -}}
{{- $found = append $found (default $namespace $pool.namespace) -}}
{{- end -}}
{{- end -}}
{{- first (append $found $namespace) }}
{{- end }}

{{/* JSON list of the names of the CRDs in crds/, for resourceNames. */}}
{{- define "taskmaster.crdNames" -}}
{{- $names := list -}}
{{- range $path, $content := .Files.Glob "crds/*.yaml" -}}
{{- $names = append $names (($content | toString | fromYaml).metadata.name) -}}
{{- end -}}
{{- if not $names -}}
{{- fail "the chart was packaged without its CRDs: crds/ is empty" -}}
{{- end -}}
{{- toJson $names }}
{{- end }}

{{- define "taskmaster.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "taskmaster.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the operator does in the namespaces it serves. */}}
{{- define "taskmaster.operatorRules" -}}
- apiGroups: [taskmaster.dev]
  resources: [tasks]
  verbs: [get, list, watch, create, delete]
- apiGroups: [taskmaster.dev]
  resources: [tasks/status]
  verbs: [get, patch]
- apiGroups: [taskmaster.dev]
  resources: [taskqueues, taskschedules, tasktemplates, workerpools]
  verbs: [get, list, watch]
- apiGroups: [taskmaster.dev]
  resources: [taskqueues/status, taskschedules/status, tasktemplates/status, workerpools/status]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Take over a lost worker's Lease. Workers create their own.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, patch]
# The workers' identity in a namespace with a pool, bound to one role only.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  resourceNames: [taskmaster-worker]
  verbs: [delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  resourceNames: [taskmaster-worker]
  verbs: [delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [{{ include "taskmaster.fullname" . }}-worker]
  verbs: [bind]
{{- if .Values.valueFrom.enabled }}
# For each pool the right of its workers to get the Secrets and ConfigMaps that it lists. Nobody can grant what he may not do
# himself, so the operator may get them as well; it never does.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles]
  verbs: [get, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [delete]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
{{- end }}
{{- end }}
