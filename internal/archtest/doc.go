// Package archtest keeps the map of ARCHITECTURE.md true: which package may
// import which, and what the pure ones must not touch. It holds only a test.
package archtest
