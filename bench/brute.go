package bench

import (
	"syntropy/internal/reconcile"
	"syntropy/ring"
)

// Brute sends token and hash of every row. The partner compares and reports.
type Brute struct{}

func (Brute) Name() string                                { return "brute" }
func (Brute) Limit(reconcile.Workload) string             { return "" }
func (Brute) Build(rows *reconcile.Replica) (Side, error) { return bruteSide{rows}, nil }

type bruteSide struct{ rows *reconcile.Replica }

func (s bruteSide) Initiate() Initiator { return initiate(s.rows, &bruteFinder{rows: s.rows}) }
func (s bruteSide) Answer() Party       { return answer(s.rows, &bruteAnswerer{rows: s.rows}) }

type bruteFinder struct {
	rows  *reconcile.Replica
	named []ring.Position
}

func (f *bruteFinder) found() (named, ask []ring.Position) { return f.named, nil }
func (f *bruteFinder) compared() int                       { return 0 }

func (f *bruteFinder) find(in, out []byte) ([]byte, error) {
	if in == nil {
		return appendList(out, readList(f.rows, 0, ring.MaxPosition, nil)), nil
	}
	named, err := receiveVerdict(in, f.rows)
	f.named = named
	return nil, err
}

type bruteAnswerer struct {
	rows *reconcile.Replica
	v    verdict
}

func (a *bruteAnswerer) compared() int { return a.v.comparisons }

func (a *bruteAnswerer) answer(in, out []byte) ([]byte, error) {
	theirs, _, err := cutList(in, nil)
	if err != nil {
		return nil, err
	}
	a.v.compareLists(readList(a.rows, 0, ring.MaxPosition, nil), theirs)
	return a.v.append(out, a.rows), nil
}
