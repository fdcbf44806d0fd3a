package main

import (
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

// ink is read on white and on black.
var ink = color.Gray{0x80}

// plotPeers are those in plots, each with a colour that is seen on white and on
// black.
var plotPeers = []struct {
	name   string
	colour color.Color
	wide   bool
}{
	{"syntropy", color.RGBA{0xe0, 0x3c, 0x31, 0xff}, true},
	{"syntropy/hint", color.RGBA{0xf0, 0x8a, 0x24, 0xff}, true},
	{"riblt/kept", color.RGBA{0x3a, 0x86, 0xd0, 0xff}, false},
	{"merkle16", color.RGBA{0x2e, 0xa0, 0x6a, 0xff}, false},
	{"merkle2", color.RGBA{0x8a, 0xb0, 0x30, 0xff}, false},
	{"negentropy", color.RGBA{0x9b, 0x6a, 0xd8, 0xff}, false},
	{"riak", color.RGBA{0xa8, 0x78, 0x50, 0xff}, false},
	{"weaviate", color.RGBA{0x20, 0xa8, 0xb8, 0xff}, false},
	{"depth-limited", color.RGBA{0xd0, 0x60, 0xa8, 0xff}, false},
}

func newPlot(x, y string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.BackgroundColor = nil // that of the page
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Label.TextStyle.Color = ink, ink
		axis.Tick.Color, axis.Tick.Label.Color = ink, ink
		axis.Scale, axis.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	}
	p.Legend.TextStyle.Color = ink
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(3)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.NRGBA{0x80, 0x80, 0x80, 0x40}, color.NRGBA{0x80, 0x80, 0x80, 0x40}
	p.Add(grid)
	return p
}

// save leaves some room around the lines: also, a scale of logarithms cannot do
// with a single value. The legend stands where no line is, above and on the right.
func save(p *plot.Plot, path string) error {
	p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*1.5
	return p.Save(18*vg.Centimeter, 11*vg.Centimeter, path)
}

// decades marks powers of ten; if there are few of them, twos and fives, too.
func decades(lo, hi float64) (ticks []plot.Tick) {
	lo = max(lo, 1e-6)
	few := hi/lo < 100
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for _, times := range []float64{1, 2, 5} {
			v, label := times*math.Pow(10, e), ""
			switch {
			case times > 1 && !few:
				continue
			case v < 1:
				label = strconv.FormatFloat(v, 'g', -1, 64)
			case v > 1e5:
				label = power(int(v))
			default:
				label = count(v)
			}
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
		}
	}
	return ticks
}

func addLine(p *plot.Plot, name string, xys plotter.XYs, colour color.Color, wide bool) error {
	if len(xys) == 0 {
		return nil
	}
	l, points, err := plotter.NewLinePoints(xys)
	if err != nil {
		return err
	}
	l.Color, l.Width = colour, vg.Points(1)
	points.Color, points.Shape, points.Radius = colour, draw.CircleGlyph{}, vg.Points(2)
	if wide {
		l.Width, points.Radius = vg.Points(2.2), vg.Points(3)
	}
	p.Add(l, points)
	// Where the typeface is missing, a browser takes a wider one: spaces keep the
	// text off the line behind it.
	p.Legend.Add(name+strings.Repeat(" ", len(name)/3+2), l)
	return nil
}

func (r results) plots(dir string) error {
	for _, x := range []struct {
		file, label string
		of          func(bench.Row) float64
	}{
		{"bench-bytes.svg", "bytes for each diverged key", func(f bench.Row) float64 { return *f.BytesPerKey }},
		{"bench-cpu.svg", "CPU time of both sides, merkle16 = 1", r.bothCPU},
	} {
		p := newPlot("diverged keys of a million", x.label)
		for _, peer := range plotPeers {
			var xys plotter.XYs
			for _, d := range diverged {
				if f, ok := r.find(peer.name, tableKeys, d, reconcile.Mixed, 1); ok {
					xys = append(xys, plotter.XY{X: float64(d), Y: x.of(f)})
				}
			}
			if err := addLine(p, peer.name, xys, peer.colour, peer.wide); err != nil {
				return err
			}
		}
		if err := save(p, filepath.Join(dir, x.file)); err != nil {
			return err
		}
	}
	return r.comparisonsPlot(filepath.Join(dir, "bench-comparisons.svg"))
}

// bothCPU is the time of both sides beside that of merkle16 in the same group.
func (r results) bothCPU(f bench.Row) float64 {
	base := f
	base.CPUMsInitiator /= *f.CPURatioInitiator
	base.CPUMsPartner /= *f.CPURatioPartner
	return (f.CPUMsInitiator + f.CPUMsPartner) / (base.CPUMsInitiator + base.CPUMsPartner)
}

func (r results) comparisonsPlot(path string) error {
	if len(r.billion) == 0 {
		return nil
	}
	var session, three, descent plotter.XYs
	for _, f := range r.billion {
		x := float64(f.N)
		switch f.D {
		case 1:
			session = append(session, plotter.XY{X: x, Y: float64(f.Comparisons)})
			descent = append(descent, plotter.XY{X: x, Y: float64(*f.Descent)})
		case 3:
			three = append(three, plotter.XY{X: x, Y: float64(f.Comparisons)})
		}
	}
	p := newPlot("keys", "digests compared")
	p.Y.Min, p.Y.Max = 1, 1000
	if err := addLine(p, "a plain descent, one key differs", descent, plotPeers[3].colour, false); err != nil {
		return err
	}
	if err := addLine(p, "the session, three keys differ", three, plotPeers[1].colour, true); err != nil {
		return err
	}
	if err := addLine(p, "the session, one key differs", session, plotPeers[0].colour, true); err != nil {
		return err
	}
	return save(p, path)
}
