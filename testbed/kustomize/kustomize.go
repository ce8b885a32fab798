//go:build binaries

// Package kustomize pins, in go.mod and go.sum, the Kustomize that builds the shipped manifests in
// tests. Nothing here is compiled into the product.
package kustomize

import _ "sigs.k8s.io/kustomize/kustomize/v5"
