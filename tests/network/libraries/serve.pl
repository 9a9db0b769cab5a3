# A handler made with Lonnet.pm: serve.pl FORM [PATH].
use strict;
use warnings;
use Lonnet;

my ($waiting, $runs, %tries) = (undef, 0);

sub serve {
    my ($request) = @_;
    print "noise\n";
    my $text = $request->text;
    my (undef, $verb) = split /:/, $text;
    my @words = map { defined $_ ? $_ : 'none' } $request->sender, $request->id, $request->key;
    return join q{ }, @words, $text if $verb eq 'who';
    if ($verb eq 'wait') { $waiting = $request; return }
    if ($verb eq 'go') { $waiting->answer('waited'); return 'gone' }
    return 'run ' . ++$runs if $verb eq 'run';
    if ($verb eq 'later') {
        Lonnet::later() if ++$tries{$text} < 2;
        return "try $tries{$text} of $words[1]";
    }
    return if $verb eq 'nothing';
    die "no\nway\n" if $verb eq 'die';
    return "a\nb" if $verb eq 'lines';
    return $text;
}

my ($form, $path) = @ARGV;
  $form eq 'tagged' ? Lonnet::serve_tagged($path, \&serve)
: $form eq 'line'   ? Lonnet::serve_lines($path, \&serve)
:                     Lonnet::worker_tagged(\&serve);
