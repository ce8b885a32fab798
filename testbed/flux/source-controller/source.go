//go:build binaries

// Package source pins, in go.mod and go.sum, the Flux source-controller that the GitOps tests run.
// Nothing here is compiled into the product.
package source

import _ "github.com/fluxcd/source-controller"
