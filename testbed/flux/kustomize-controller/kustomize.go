//go:build binaries

// Package kustomize pins, in go.mod and go.sum, the Flux kustomize-controller that the GitOps tests run.
// Nothing here is compiled into the product.
package kustomize

import _ "github.com/fluxcd/kustomize-controller"
