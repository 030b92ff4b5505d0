module trefoil/bench/loadgen

go 1.22
