//go:build binaries

// Package opa pins, in go.mod and go.sum, the Open Policy Agent that the embedded
// policy engine is held against. Nothing here is compiled into the product.
package opa

import _ "github.com/open-policy-agent/opa"
