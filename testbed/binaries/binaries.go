//go:build binaries

// Package binaries pins, in go.mod and go.sum, the programs that the test bed
// runs. Nothing here is compiled into the product.
package binaries

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
