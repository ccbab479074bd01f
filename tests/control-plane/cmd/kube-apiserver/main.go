// Command kube-apiserver is the API server of Kubernetes, unchanged, built from
// the published module instead of a checkout. The blank imports are those of
// the original main package: they register the JSON log format and the
// Prometheus collectors behind /metrics, which tests read.
package main

import (
	"os"
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
