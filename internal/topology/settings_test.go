package topology

import (
	"testing"

	"syntropy/merkle"
)

// A cluster is created with the digests that this release computes.
func TestDigestVersionIsThatOfTheTrees(t *testing.T) {
	if got := DefaultSettings().DigestVersion; got != merkle.DigestVersion {
		t.Errorf("new clusters have digests of version %d, trees of version %d", got, merkle.DigestVersion)
	}
}
