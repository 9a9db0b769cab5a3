package Lonnet;

use 5.010;
use strict;
use warnings;
use Time::HiRes ();

our $VERSION = '0.1.0';

# Most requests that are sent ahead of their answers, and most bytes of them.
our $MAX_AHEAD       = 10_000;
our $MAX_AHEAD_BYTES = 4 * 1024 * 1024;

# Longest line in bytes that any configuration allows; a handler's line has words before it.
our $MAX_LINE = 16 * 1024 * 1024 + 1024;

my $READ = 64 * 1024;

sub new {
    my ($class, %given) = @_;
    my $self = {
        path    => "$given{run_dir}/$given{peer}",
        timeout => exists $given{timeout} ? $given{timeout} : 60,
    };
    return bless $self, $class;
}

sub close {
    my ($self) = @_;
    delete $self->{connection};
    return;
}

sub reply {
    my ($self, $request, %given) = @_;
    return $self->_ask(_checked($request), $self->_deadline(%given));
}

sub critical {
    my ($self, $request, %given) = @_;
    my $deadline = $self->_deadline(%given);
    my $line     = _checked($request);
    $line = _checked($line) if $line =~ s/\Acritical://;
    my $key = $given{key};
    if ($line =~ /\Acritical;/) {
        Lonnet::BadRequest->throw('it has a key already') if defined $key;
    }
    elsif (!defined $key) {
        return $self->_ask("critical:$line", $deadline);
    }
    else {
        Lonnet::BadRequest->throw('a key is 1 to 64 of A-Z a-z 0-9 . _ -')
            if $key !~ /\A[A-Za-z0-9._-]{1,64}\z/;
        $line = "critical;key=$key:$line";
    }
    my $outcome = eval { $self->_ask($line, $deadline) };
    return $outcome if $outcome;
    my $broken = $@;
    die $broken if !Lonnet::Broken->caught($broken);
    $outcome = eval { $self->_ask($line, $deadline) };
    return $outcome if $outcome;
    my $error = $@;
    # "Nothing was sent" is true of the second try alone.
    die Lonnet::Away->caught($error) ? $broken : $error;
}

sub map {
    my ($self, $requests, $each, %given) = @_;
    my ($next, $bad, @all) = (0);
    $each ||= sub { push @all, $_[0] };
    my $connection = $self->_ready($self->_deadline(%given));
    while (1) {
        while (!$bad && $next < @$requests && $connection->has_room) {
            my $line = eval { _checked($requests->[$next++]) };
            if (defined $line) { $connection->send($line) }
            else               { $bad = $@ }
        }
        last if !$connection->waiting;
        $each->(Lonnet::Outcome->of($connection->next_answer($self->_deadline(%given))));
    }
    $self->{connection} = $connection;
    die $bad if $bad;
    return @all;
}

sub _deadline {
    my ($self, %given) = @_;
    my $timeout = exists $given{timeout} ? $given{timeout} : $self->{timeout};
    return defined $timeout ? _now() + $timeout : undef;
}

# One request; a connection that ended before it took a byte is made anew, once.
sub _ask {
    my ($self, $line, $deadline) = @_;
    for my $last (0, 1) {
        my $connection = $self->_ready($deadline);
        my $before     = $connection->{written};
        my $answer     = eval {
            $connection->send($line);
            $connection->next_answer($deadline);
        };
        if (defined $answer) {
            $self->{connection} = $connection;
            return Lonnet::Outcome->of($answer);
        }
        my $error = $@;
        die $error if $last || !Lonnet::Broken->caught($error) || $connection->{written} > $before;
    }
}

# The connection, if it is still there and silent, else another one.
sub _ready {
    my ($self, $deadline) = @_;
    my $connection = delete $self->{connection};
    return $connection if $connection && $connection->is_idle;
    return Lonnet::Connection->open($self->{path}, $deadline);
}

sub _now {
    return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
}

# Bytes, or nothing: characters have to be encoded by whoever knows how.
sub _as_bytes {
    my ($text) = @_;
    return utf8::downgrade($text, 1) ? $text : undef;
}

sub _checked {
    my ($request) = @_;
    my $line = defined $request ? _as_bytes($request) : q{};
    Lonnet::BadRequest->throw('a request is bytes: encode its characters') if !defined $line;
    Lonnet::BadRequest->throw('the request is empty')                      if $line eq q{};
    Lonnet::BadRequest->throw('a request is one line')                     if $line =~ /\n/;
    return $line;
}

# ---------------------------------------------------------------------------------------- serving

sub serve_lines {
    my ($path, $handler, %given) = @_;
    return Lonnet::Server->new($path, $handler, 0, %given)->run;
}

sub serve_tagged {
    my ($path, $handler, %given) = @_;
    return Lonnet::Server->new($path, $handler, 1, %given)->run;
}

sub worker_tagged {
    my ($handler) = @_;
    open my $in,  '<&', \*STDIN  or die "copy standard input: $!\n";
    open my $out, '>&', \*STDOUT or die "copy standard output: $!\n";
    # What the handler prints, and what programs print that it starts, must not come between.
    open STDOUT, '>&', \*STDERR     or die "turn standard output: $!\n";
    open STDIN,  '<',  '/dev/null' or die "open /dev/null: $!\n";
    local $SIG{PIPE} = 'IGNORE';
    my $served = Lonnet::Served->new($in, $out, $handler, 1);
    $served->turn until $served->is_done(1);
    $served->{over} = 1;
    return;
}

sub later { die Lonnet::Later->new }

# --------------------------------------------------------------------------------------- outcomes

package Lonnet::Outcome;

my %WORDS = (
    con_lost    => 'Lost',
    con_delayed => 'Delayed',
    con_failed  => 'Failed',
    refused     => 'Refused',
    unknown_cmd => 'Refused',
);

sub of {
    my (undef, $raw) = @_;
    my $kind = $raw =~ /\Aerror:/ ? 'Error' : $WORDS{$raw} || 'Answer';
    return bless { raw => $raw, kind => $kind }, "Lonnet::$kind";
}

sub raw        { return $_[0]{raw} }
sub kind       { return $_[0]{kind} }
sub is_answer  { return $_[0]{kind} eq 'Answer' }
sub is_delayed { return $_[0]{kind} eq 'Delayed' }

sub text {
    my ($self) = @_;
    return $self->{kind} eq 'Error' ? substr $self->{raw}, length 'error:' : $self->{raw};
}

{
    no strict 'refs';
    @{"Lonnet::${_}::ISA"} = ('Lonnet::Outcome') for qw(Answer Lost Delayed Failed Refused Error);
}

package Lonnet::Exception;

use overload '""' => sub { return $_[0]{message} . "\n" }, bool => sub { return 1 }, fallback => 1;

sub throw {
    my ($class, $message) = @_;
    die bless { message => $message }, $class;
}

sub caught {
    my ($class, $error) = @_;
    return ref $error && eval { $error->isa($class) };
}

sub message             { return $_[0]{message} }
sub may_have_been_taken { return 0 }

{
    no strict 'refs';
    @{"Lonnet::${_}::ISA"} = ('Lonnet::Exception') for qw(BadRequest Away Broken Timeout Later);
    *{"Lonnet::${_}::may_have_been_taken"} = sub { return 1 }
        for qw(Broken Timeout);
}

sub Lonnet::Later::new { return bless { message => 'not now' }, 'Lonnet::Later' }

# ------------------------------------------------------------------------------------------ lines

# Bytes to lines; no byte is looked at twice.
package Lonnet::Lines;

sub new { return bless { ready => [], parts => q{} }, $_[0] }

sub push {
    my ($self, $data) = @_;
    my @lines = split /\n/, $data, -1;
    my $rest  = pop @lines;
    if (@lines) {
        $lines[0] = $self->{parts} . $lines[0];
        CORE::push @{ $self->{ready} }, @lines;
        $self->{parts} = $rest;
    }
    else {
        $self->{parts} .= $rest;
    }
    return length($self->{parts}) <= $Lonnet::MAX_LINE;
}

# One connection, and what waits for its answer on it.
package Lonnet::Connection;

use Errno qw(ETIMEDOUT);
use IO::Handle ();
use Socket qw(AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL MSG_PEEK SOCK_STREAM pack_sockaddr_un);

sub open {
    my ($class, $path, $deadline) = @_;
    my $away = sub { Lonnet::Away->throw("connect $path: $_[0]") };
    my $address = eval { pack_sockaddr_un($path) } or $away->('the path is too long');
    socket my $socket, AF_UNIX, SOCK_STREAM, 0 or $away->($!);
    $socket->blocking(0);
    until (connect $socket, $address) {
        # The queue of connections is full, and there is nothing to poll for.
        $away->($!) if !($!{EAGAIN} || $!{EINTR});
        do { $! = ETIMEDOUT; $away->($!) } if defined $deadline && Lonnet::_now() >= $deadline;
        select undef, undef, undef, 0.01;
    }
    my $self = {
        socket  => $socket,
        out     => q{},
        written => 0,
        lines   => Lonnet::Lines->new,
        sizes   => [],
        bytes   => 0,
    };
    return bless $self, $class;
}

sub waiting { return scalar @{ $_[0]{sizes} } }

sub has_room {
    my ($self) = @_;
    return @{ $self->{sizes} } < $Lonnet::MAX_AHEAD && $self->{bytes} < $Lonnet::MAX_AHEAD_BYTES;
}

# Whether the broker has neither closed nor said what nobody asked for.
sub is_idle {
    my ($self) = @_;
    return 0 if $self->waiting || @{ $self->{lines}{ready} };
    return !defined recv($self->{socket}, my $data, 1, MSG_PEEK | MSG_DONTWAIT)
        && ($!{EAGAIN} || $!{EWOULDBLOCK});
}

sub send {
    my ($self, $line) = @_;
    $self->{out} .= "$line\n";
    CORE::push @{ $self->{sizes} }, length $line;
    $self->{bytes} += length $line;
    return;
}

sub next_answer {
    my ($self, $deadline) = @_;
    my $ready = $self->{lines}{ready};
    $self->_turn($deadline) until @$ready;
    Lonnet::Broken->throw('an answer came that nobody asked for') if !$self->waiting;
    $self->{bytes} -= shift @{ $self->{sizes} };
    return shift @$ready;
}

# Waits until something can be read or written, and does it.
sub _turn {
    my ($self, $deadline) = @_;
    my $left = defined $deadline ? $deadline - Lonnet::_now() : undef;
    Lonnet::Timeout->throw('no answer in time') if defined $left && $left <= 0;
    vec(my $read = q{}, fileno $self->{socket}, 1) = 1;
    my $write = length $self->{out} ? $read : undef;
    return if select($read, $write, undef, $left) <= 0;
    $self->_write;
    my $got = recv $self->{socket}, my $data, $READ, MSG_DONTWAIT;
    if (!defined $got) {
        return if $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
        Lonnet::Broken->throw("$!");
    }
    Lonnet::Broken->throw('the broker closed without an answer') if $data eq q{};
    $self->{lines}->push($data)
        or Lonnet::Broken->throw('an answer is longer than any may be');
    return;
}

sub _write {
    my ($self) = @_;
    while (length $self->{out}) {
        my $share = substr $self->{out}, 0, $READ;
        my $count = CORE::send $self->{socket}, $share, MSG_NOSIGNAL | MSG_DONTWAIT;
        if (!defined $count) {
            return if $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
            # It may have answered before it closed: what was said is read first.
            $self->{out} = q{};
            return;
        }
        $self->{written} += $count;
        substr($self->{out}, 0, $count) = q{};
    }
    return;
}

# ------------------------------------------------------------------------- what a handler is asked

package Lonnet::Request;

sub tag         { return $_[0]{tag} }
sub sender      { return $_[0]{sender} }
sub id          { return $_[0]{id} }
sub key         { return $_[0]{key} }
sub text        { return $_[0]{text} }
sub is_critical { return defined $_[0]{id} }

# Answers a request that the handler has put off: it has kept it, and returned nothing.
sub answer {
    my ($self, $text) = @_;
    my $served = delete $self->{served} or return;
    $served->answer($self, defined $text ? $text : q{});
    return;
}

# Nobody has the request any more, so nobody can answer it: what was not kept at all has an empty
# answer, what was put off and forgotten an error.
sub DESTROY {
    my ($self) = @_;
    return if !$self->{served} || (${^GLOBAL_PHASE} || q{}) eq 'DESTRUCT';
    local ($@, $!, $?);
    $self->answer($self->{fresh} ? q{} : 'error:the handler has given no answer');
    return;
}

# `<tag> <from> <id> <key> <request>`; nothing for what is none.
sub parse {
    my ($class, $line) = @_;
    my ($tag, $sender, $id, $key, $text) = $line =~ /\A([0-9]{1,20}) ([^ ]+) ([^ ]+) ([^ ]+) (.*)\z/s
        or return;
    my %words = (sender => $sender, id => $id, key => $key);
    for my $word (keys %words) {
        undef $words{$word} if $words{$word} eq q{-};
    }
    return bless { tag => $tag, text => $text, %words }, $class;
}

# One connection that is served; `open`: requests without an answer.
package Lonnet::Served;

use IO::Handle   ();
use Scalar::Util ();

# Bytes of answers beyond which no further request is read.
my $HIGH = 1024 * 1024;

sub new {
    my ($class, $in, $out, $handler, $tagged) = @_;
    my $self = {
        in      => $in,
        out     => $out,
        handler => $handler,
        tagged  => $tagged,
        lines   => Lonnet::Lines->new,
        pending => q{},
        turns   => [],
        open    => 0,
        reading => 1,
        broken  => 0,
    };
    $_->blocking(0) for $in, $out;
    return bless $self, $class;
}

sub wants_read  { my ($self) = @_; return $self->{reading} && length $self->{pending} < $HIGH }
sub wants_write { return length $_[0]{pending} }

# Whether nothing more will be said here. When the program stops, nobody answers what was put off.
sub is_done {
    my ($self, $stopping) = @_;
    return 1 if $self->{broken};
    return 0 if $self->{reading} || length $self->{pending};
    return $stopping || !$self->{open};
}

# Waits for this connection alone.
sub turn {
    my ($self) = @_;
    my ($read, $write) = (q{}, q{});
    vec($read,  fileno $self->{in},  1) = 1 if $self->wants_read;
    vec($write, fileno $self->{out}, 1) = 1 if $self->wants_write;
    return if select($read, $write, undef, undef) <= 0;
    $self->read if vec $read, fileno $self->{in}, 1;
    $self->write;
    return;
}

# Reads what has come, and has it answered.
sub read {
    my ($self) = @_;
    my $count = sysread($self->{in}, my $data, $READ);
    if (!defined $count) {
        return if $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
        $self->{reading} = 0;
        return;
    }
    if (!$count) {
        $self->{reading} = 0;
        return;
    }
    my $fits = $self->{lines}->push($data);
    while (defined(my $line = shift @{ $self->{lines}{ready} })) {
        $self->_serve($line);
    }
    $self->break('a line is longer than any may be') if !$fits;
    return;
}

sub _serve {
    my ($self, $line) = @_;
    my $request
        = $self->{tagged}
        ? Lonnet::Request->parse($line)
        : bless { text => $line }, 'Lonnet::Request';
    return $self->break('no request of the tagged form: ' . substr $line, 0, 60) if !$request;
    $self->{open}++;
    # Of the line form answers have the order of the requests.
    CORE::push @{ $self->{turns} }, $request->{turn} = {} if !$self->{tagged};
    $request->{served} = $self;
    my ($said, $done, $failed);
    {
        local $@;
        $done   = eval { $said = $self->{handler}->($request); 1 };
        $failed = $@;
    }
    if ($done && defined $said) {
        $request->answer($said);
    }
    elsif ($done) {
        # If the handler has not kept it, this was the last that had it.
        $request->{fresh} = 1;
        Scalar::Util::weaken($request);
        delete $request->{fresh} if $request;
    }
    elsif (Lonnet::Later->caught($failed)) {
        delete $request->{served};
        $self->answer($request, undef);
    }
    else {
        my $why = eval {"$failed"};
        $why = ref $failed if !defined $why;
        $why =~ s/\s+/ /g;
        $why =~ s/\A | \z//g;
        warn 'serve ' . substr($line, 0, 60) . ": $why\n";
        utf8::encode($why) if !defined Lonnet::_as_bytes($why);
        $request->answer("error:$why");
    }
    return;
}

# Has `text` sent as the answer; undefined: later.
sub answer {
    my ($self, $request, $text) = @_;
    return if $self->{over};
    if (defined $text) {
        my $bytes = Lonnet::_as_bytes($text);
        my $wrong
            = !defined $bytes ? 'has characters that are no bytes: encode them'
            : $bytes =~ /\n/  ? 'has a newline in it'
            :                   undef;
        warn "the handler's answer $wrong\n" if $wrong;
        $text = $wrong ? "error:the handler's answer $wrong" : $bytes;
    }
    $self->{open}--;
    if ($self->{tagged}) {
        my $tag = $request->{tag};
        $self->{pending} .= defined $text ? "$tag $text\n" : "$tag!later\n";
    }
    else {
        $request->{turn}{said} = defined $text ? $text : 'error:not now';
        my $turns = $self->{turns};
        $self->{pending} .= shift(@$turns)->{said} . "\n" while @$turns && defined $turns->[0]{said};
    }
    $self->write;
    return;
}

sub write {
    my ($self) = @_;
    local $SIG{PIPE} = 'IGNORE';
    while (length $self->{pending}) {
        my $count = syswrite $self->{out}, $self->{pending}, $READ;
        if (!defined $count) {
            return if $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
            # Who asked has gone. What was not answered, lond settles.
            $self->{broken}  = 1;
            $self->{pending} = q{};
            return;
        }
        substr($self->{pending}, 0, $count) = q{};
    }
    return;
}

sub break {
    my ($self, $why) = @_;
    warn "serve a connection: $why\n";
    $self->{broken} = 1;
    return;
}

# A handler's Unix socket, and all connections to it.
package Lonnet::Server;

use IO::Handle ();
use Socket qw(AF_UNIX SOCK_STREAM SOMAXCONN pack_sockaddr_un);

sub new {
    my ($class, $path, $handler, $tagged, %given) = @_;
    my $self = bless { path => $path, handler => $handler, tagged => $tagged, served => {} }, $class;
    $self->_listen(exists $given{mode} ? $given{mode} : oct '660');
    return $self;
}

# The name appears when the socket is ready, in place of one that a program left which has ended; a
# socket that is served is not taken.
sub _listen {
    my ($self, $mode) = @_;
    my $path = $self->{path};
    if (-e $path) {
        die "listen at $path: is no socket\n" if !-S _;
        socket my $probe, AF_UNIX, SOCK_STREAM, 0 or die "listen at $path: $!\n";
        $probe->blocking(0);
        die "listen at $path: it is served already\n"
            if connect($probe, pack_sockaddr_un($path)) || !$!{ECONNREFUSED};
    }
    my ($folder) = $path =~ m{\A(.*/)};
    my $new = (defined $folder ? $folder : q{}) . ".$$";
    unlink $new;
    socket my $listener, AF_UNIX, SOCK_STREAM, 0 or die "listen at $path: $!\n";
    $listener->blocking(0);
    bind $listener, pack_sockaddr_un($new) or die "listen at $path: $!\n";
    chmod $mode, $new or die "listen at $path: $!\n";
    listen $listener, SOMAXCONN or die "listen at $path: $!\n";
    $self->{inode} = (stat $new)[1];
    rename $new, $path or die "listen at $path: $!\n";
    $self->{listener} = $listener;
    return;
}

# Serves until TERM or INT, and answers then what was read.
sub run {
    my ($self) = @_;
    my $stop = 0;
    local $SIG{TERM} = sub { $stop = 1 };
    local $SIG{INT}  = sub { $stop = 1 };
    while (!$stop) {
        $self->_turn(0);
    }
    my @inode = stat $self->{path};
    unlink $self->{path} if @inode && $inode[1] == $self->{inode};
    CORE::close delete $self->{listener};
    # What is in the sockets was taken; nothing more is.
    for my $served (values %{ $self->{served} }) {
        shutdown $served->{in}, 0;
    }
    $self->_turn(1) while %{ $self->{served} };
    return;
}

sub _turn {
    my ($self, $stopping) = @_;
    my ($read, $write) = (q{}, q{});
    my $listener = $self->{listener};
    vec($read, fileno $listener, 1) = 1 if $listener;
    for my $fd (grep { $self->{served}{$_}->is_done($stopping) } keys %{ $self->{served} }) {
        delete($self->{served}{$fd})->{over} = 1;
    }
    while (my ($fd, $served) = each %{ $self->{served} }) {
        vec($read,  $fd, 1) = 1 if $served->wants_read;
        vec($write, $fd, 1) = 1 if $served->wants_write;
    }
    # With an end, for a signal that came just before this.
    return if select($read, $write, undef, 1) <= 0;
    if ($listener && vec $read, fileno $listener, 1) {
        if (accept(my $socket, $listener)) {
            $self->{served}{ fileno $socket }
                = Lonnet::Served->new($socket, $socket, $self->{handler}, $self->{tagged});
        }
    }
    for my $fd (keys %{ $self->{served} }) {
        my $served = $self->{served}{$fd};
        $served->read  if vec $read,  $fd, 1;
        $served->write if vec $write, $fd, 1;
    }
    return;
}

package Lonnet;

1;

__END__

=head1 NAME

Lonnet - ask the hosts of a lonnet network, and serve their requests

=head1 SYNOPSIS

    use Lonnet;

    my $beta = Lonnet->new(run_dir => '/var/lib/lonnet/run', peer => 'beta', timeout => 10);
    print $beta->reply('ping')->text;
    my $outcome = $beta->critical('pay:12.50', key => 'order-4711');
    print "beta is away: it is on disk here, and will be sent\n" if $outcome->is_delayed;
    my @outcomes = $beta->map(['log:one', 'log:two']);

    # in the other host's lonnet.toml: socket = "/run/app.sock", format = "tagged"
    Lonnet::serve_tagged('/run/app.sock', sub {
        my ($request) = @_;
        Lonnet::later() if busy();
        return 'paid ' . $request->text;
    });

=head1 ASKING

A request is bytes without a newline, and not empty. C<timeout> is in seconds, for each request with
its connection (60 if it is not given; undefined: for ever); each method takes one of its own as
C<< timeout => SECONDS >>. A connection that went away between two requests is made anew in silence.

=head2 Lonnet->new(run_dir => FOLDER, peer => ID, timeout => SECONDS)

A client of one peer's local socket. It connects with its first request.

=head2 $client->reply(REQUEST)

Sends one request, waits for its answer, and returns its outcome.

=head2 $client->critical(REQUEST, key => KEY)

Sends one critical request: it arrives, even if the other host is away today. With a key (1 to 64 of
C<A-Z a-z 0-9 . _ ->) the other host runs it once, however often it is sent; so it is sent once more by
itself over another connection if the first broke, and may be sent again after any exception.

=head2 $client->map([REQUESTS], CODE)

Sends many requests ahead of their answers, and returns the list of their outcomes, in order; with
CODE, calls it with each outcome instead, as it comes. Each answer may take C<timeout> after the one
before. An exception is that of the first request without an outcome.

=head2 $client->close

Ends the connection.

=head1 OUTCOMES

Objects of the classes C<Lonnet::Answer>, C<Lonnet::Lost>, C<Lonnet::Delayed>, C<Lonnet::Failed>,
C<Lonnet::Refused> (C<unknown_cmd>, too) and C<Lonnet::Error>, each a C<Lonnet::Outcome>: C<kind> is
the class's last word, C<raw> the answer line, C<text> the same but without C<error:> of an Error;
C<is_answer>, C<is_delayed>.

Where there is no outcome, the methods die with an object that is a C<Lonnet::Exception>, with
C<message> and C<may_have_been_taken>:

    Lonnet::BadRequest   it cannot be a request; nothing was sent
    Lonnet::Away         no connection could be made, or not in time; nothing was sent
    Lonnet::Broken       the connection ended when the request, or a part of it, had been sent
    Lonnet::Timeout      no answer in time; the connection was given up

=head1 SERVING

=head2 Lonnet::serve_lines(PATH, CODE), Lonnet::serve_tagged(PATH, CODE)

Listens on a Unix socket (C<< mode => oct('660') >>) and serves the line form or the tagged form until
TERM or INT; what was read by then is answered. One process serves all connections, one request after
the other.

CODE gets a C<Lonnet::Request> and returns its answer, bytes without a newline. A request has
C<text>, and in the tagged form C<tag>, C<sender> (the asking host), C<id> (what names a critical
message for ever, the same when it comes again), C<key> (the asking program's own) and
C<is_critical>; what there is none of is undefined.

Where CODE returns nothing (C<undef>), the answer is an empty line, of which a message that was stored
goes to C<failed/> at its sender: better return C<'ok'>. But if CODE has kept the request, it waits for
C<< $request->answer(BYTES) >>, which another call may say: in the tagged form answers have any order.
One that is kept and then forgotten is answered C<error:the handler has given no answer>.

C<Lonnet::later()> says that this is not the time: a critical message is kept by its sender and comes
again. Any other C<die> is answered C<error:> and what it says, in one line. C<exit> ends the program at
once; what was not answered, C<lond> answers with an error.

=head2 Lonnet::worker_tagged(CODE)

The same on standard input and output, for C<worker = [...]>. What CODE prints goes to standard error,
so that it cannot come between the answers.

=cut
