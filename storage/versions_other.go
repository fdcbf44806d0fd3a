//go:build !unix

package storage

func (v *versions) mapBuckets(int) bool { return false }
