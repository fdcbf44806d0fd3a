package storagebench
import ("testing";"os";"strconv";"sort";"strings")
func TestZZ(t *testing.T){
	n,_:=strconv.Atoi(os.Getenv("N")); s,_:=strconv.Atoi(os.Getenv("S"))
	wr,_:=strconv.Atoi(os.Getenv("W")); r,_:=strconv.Atoi(os.Getenv("R"))
	w:=Workload{Dir:"/tmp/a-helper",Rows:n,Writers:wr,Sync:os.Getenv("SYNC")!="",Slice:s,Rounds:r,Seed:1,CacheBytes:1<<30,VersionBytes:256<<20}
	ways:=Ways(); if x:=os.Getenv("WAYS"); x!="" {ways=strings.Split(x,",")}
	c,err:=w.Writes(ways,func(s string){ if os.Getenv("V")!="" || strings.Contains(s,"filled") {t.Log(s)} })
	if err!=nil {t.Fatal(err)}
	med:=func(x []float64) float64 {sort.Float64s(x); return x[len(x)/2]}
	for _,way:=range ways { var a,b,ra,rb []float64; for i,k:=range c[way]{a=append(a,k.WallMicros);b=append(b,k.CPUMicros); ra=append(ra,k.WallMicros/c[ways[0]][i].WallMicros); rb=append(rb,k.CPUMicros/c[ways[0]][i].CPUMicros)}; t.Logf("%-8s wall %.2f cpu %.2f  x wall %.2f cpu %.2f",way,med(a),med(b),med(ra),med(rb)) }
}
